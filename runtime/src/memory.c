#include "memory.h"

#include <stdlib.h>
#include <string.h>

void *allocate(uint64_t count, uint64_t size) {
  void *memory = NULL;
  if (count > PTRDIFF_MAX / 2 / (size ? size : 1)) return NULL;
  const size_t bytes = (size_t)(count * size) + 64;
  if (posix_memalign(&memory, 64, bytes)) return NULL;
  memset(memory, 0, bytes);
  return memory;
}

TfLiteStatus no_memory(TfLiteContext *context) {
  context->ReportError(context, "larq-rep: out of memory.");
  return kTfLiteError;
}
