/* The memory of the tensors that only the partition sees. */
#ifndef LARQ_REP_ARENA_H
#define LARQ_REP_ARENA_H

#include "delegate.h"

/* Gives the delegate's own buffers their offsets once the tasks are known; returns the bytes of all. */
uint64_t place_buffers(struct plan *plan);

#endif
