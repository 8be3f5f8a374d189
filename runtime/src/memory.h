/* Memory that the delegate allocates. */
#ifndef LARQ_REP_MEMORY_H
#define LARQ_REP_MEMORY_H

#include "tflite.h"

/* Aligned to cache lines and zeroed; NULL if there is no memory, or the product is more than addresses reach. Sizes
 * that a file decides are computed in 64 bits, even if addresses have 32. Freed by free. */
void *allocate(uint64_t count, uint64_t size);

/* Reports a lack of memory; returns kTfLiteError. */
TfLiteStatus no_memory(TfLiteContext *context);

#endif
