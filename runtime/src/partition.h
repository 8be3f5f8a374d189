/* A partition: the part of a graph that the delegate runs as one node. */
#ifndef LARQ_REP_PARTITION_H
#define LARQ_REP_PARTITION_H

#include <stdatomic.h>

#include "delegate.h"

struct threads;

/* Data that a delegate and its partitions share. The last of them to end frees it: a program may destroy the delegate
 * while interpreters still use it, and Python's garbage collector ends them in any order. */
struct shared {
  TfLiteDelegate delegate;
  struct options options;
  struct threads *threads;
  atomic_int users;
};

struct partition {
  struct shared *shared;
  const struct options *options;
  struct plan *plan;
  int num_threads;
  int64_t cache_bytes; /* of all threads */
  char *memory;
  uint64_t memory_bytes;
  char *scratch;
  uint64_t scratch_bytes; /* of one thread */
  long invocations;
};

/* Plans for the shapes that the tensors have now. */
TfLiteStatus prepare_partition(TfLiteContext *context, struct partition *partition);
TfLiteStatus invoke_partition(TfLiteContext *context, struct partition *partition);

#endif
