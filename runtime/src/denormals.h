/* How the processor treats denormal numbers. */
#ifndef LARQ_REP_DENORMALS_H
#define LARQ_REP_DENORMALS_H

/* Treats denormal numbers as zero, as TFLite does around its own operators; the workers do so as well. */
static inline unsigned long long flush_denormals(void) {
#if defined(__x86_64__)
  const unsigned saved = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(saved | 0x8040);
  return saved;
#elif defined(__aarch64__)
  unsigned long long saved;
  __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
  __asm__ volatile("msr fpcr, %0" ::"r"(saved | 1ull << 24));
  return saved;
#else
  return 0;
#endif
}

static inline void restore_denormals(unsigned long long saved) {
#if defined(__x86_64__)
  __builtin_ia32_ldmxcsr((unsigned)saved);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" ::"r"(saved));
#else
  (void)saved;
#endif
}

#endif
