/* The order of the work. */
#ifndef LARQ_REP_SCHEDULE_H
#define LARQ_REP_SCHEDULE_H

#include "delegate.h"

enum { GRAIN = 2 }; /* pixels that a thread takes at least, if they are no tile of a convolution */

/* Fills plan->tasks with turns for threads that share this many bytes of cache; false if there is no memory. All shapes
 * must be known, and all weights laid out. */
bool make_schedule(struct plan *plan, int num_threads, int64_t cache);

#endif
