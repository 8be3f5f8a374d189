/* The order of the work. */
#ifndef LARQ_REP_SCHEDULE_H
#define LARQ_REP_SCHEDULE_H

#include "delegate.h"

/* Fills plan->tasks; false if there is no memory. All shapes must be known. */
bool make_schedule(struct plan *plan, int num_threads);

#endif
