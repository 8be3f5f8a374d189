/* Finds the implementations that this processor runs. */
#include <stdio.h>
#include <string.h>

#include "kernels.h"

/* Detection uses the compiler's cpuid reader; every AArch64 processor has NEON. */
const struct kernels *const all_kernels[] = {
#if defined(PORTABLE_ONLY) /* for fuzzing, which tests the code before the kernels */
#elif defined(__x86_64__)
#if defined(HAS_AMX)
    &kernels_amx,
#endif
    &kernels_avx512,   &kernels_avx2, &kernels_popcnt,
#elif defined(__aarch64__)
    &kernels_neon,
#endif
    &kernels_portable,
    NULL,
};

const struct kernels *choose_kernels(const char *name) {
  for (const struct kernels *const *k = all_kernels; *k; k++) {
    const bool given = name && *name;
    if ((given && strcmp(name, (*k)->name) != 0) || !(*k)->supported()) continue;
    if (given || !(*k)->preferred || (*k)->preferred()) return *k;
  }
  return NULL;
}

const char *lack_of_kernels(const char *name) {
  for (const struct kernels *const *k = all_kernels; *k; k++)
    if (strcmp(name, (*k)->name) == 0) return (*k)->lack ? (*k)->lack() : NULL;
  return NULL;
}

void list_kernels(char *text, size_t size) {
  const struct kernels *best = choose_kernels(NULL);
  size_t used = (size_t)snprintf(text, size, "%s", best->name);
  for (const struct kernels *const *k = all_kernels; *k; k++) {
    if (*k == best || !(*k)->supported() || used >= size) continue;
    const int written = snprintf(text + used, size - used, ",%s", (*k)->name);
    if (written > 0) used += (size_t)written;
  }
}

/* Straight-line code takes its channels from wherever they are. */
static enum opcode not_repeated(enum opcode code) {
  return code == OP_LOAD_REPEATED ? OP_LOAD : code == OP_ADD_LOADED_REPEATED ? OP_ADD_LOADED : code;
}

run_function find_run(const struct kernels *kernels, const struct instruction *program, int count) {
  if (kernels->small) kernels = kernels->small;
  for (const struct straight *s = kernels->straight; s->count; s++) {
    int same = 0;
    while (same < count && same < s->count && s->codes[same] == not_repeated(program[same].code)) same++;
    if (same == count && same == s->count) return s->run;
  }
  return kernels->run;
}
