/* The size of the processor's second-level cache. */
#ifndef LARQ_REP_CACHE_H
#define LARQ_REP_CACHE_H

#include <stdint.h>

/* Bytes of second-level cache that this many threads have together, as Linux tells of its first processor, but at most
 * a quarter of the third-level cache, through which everything passes; 1 MB if it does not tell. */
int64_t cache_bytes(int num_threads);

#endif
