/* Runs tasks of a plan. */
#ifndef LARQ_REP_RUN_H
#define LARQ_REP_RUN_H

#include "partition.h"

void run_task(const struct partition *partition, const struct task *task);

#endif
