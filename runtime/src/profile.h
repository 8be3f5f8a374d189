/* The times of steps, for the option `profile`. */
#ifndef LARQ_REP_PROFILE_H
#define LARQ_REP_PROFILE_H

#include "partition.h"

/* Seconds of a clock that only goes forward. */
double seconds(void);

/* Adds the times of an invocation, which are in step->now. */
void add_times(struct partition *partition);

/* One line of JSON, to stderr. */
void print_profile(const struct partition *partition);

#endif
