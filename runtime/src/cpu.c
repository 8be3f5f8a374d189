/* Finds the implementations that this processor runs. */
#include <stdio.h>
#include <string.h>

#include "kernels.h"

/* Detection uses the compiler's cpuid reader; every AArch64 processor has NEON. */
const struct kernels *const all_kernels[] = {
#if defined(PORTABLE_ONLY) /* for fuzzing, which tests the code before the kernels */
#elif defined(__x86_64__)
    &kernels_avx512,   &kernels_avx2, &kernels_popcnt,
#elif defined(__aarch64__)
    &kernels_neon,
#endif
    &kernels_portable,
    NULL,
};

const struct kernels *choose_kernels(const char *name) {
  for (const struct kernels *const *k = all_kernels; *k; k++)
    if ((!name || !*name || strcmp(name, (*k)->name) == 0) && (*k)->supported()) return *k;
  return NULL;
}

void list_kernels(char *text, size_t size) {
  size_t used = 0;
  text[0] = 0;
  for (const struct kernels *const *k = all_kernels; *k; k++) {
    if (!(*k)->supported() || used >= size) continue;
    const int written = snprintf(text + used, size - used, "%s%s", used ? "," : "", (*k)->name);
    if (written > 0) used += (size_t)written;
  }
}

/* Straight-line code takes its channels from wherever they are. */
static enum opcode not_repeated(enum opcode code) {
  return code == OP_LOAD_REPEATED ? OP_LOAD : code == OP_ADD_LOADED_REPEATED ? OP_ADD_LOADED : code;
}

run_function find_run(const struct kernels *kernels, const struct instruction *program, int count) {
  for (const struct straight *s = kernels->straight; s->count; s++) {
    int same = 0;
    while (same < count && same < s->count && s->codes[same] == not_repeated(program[same].code)) same++;
    if (same == count && same == s->count) return s->run;
  }
  return kernels->run;
}
