/* The plan of a partition. */
#ifndef LARQ_REP_PLAN_H
#define LARQ_REP_PLAN_H

#include "delegate.h"

/* Reads the operators; reports and returns NULL if there is no memory or one cannot be taken. */
struct plan *make_plan(TfLiteContext *context, const TfLiteDelegateParams *params);
/* Whether the steps that were made for plan->shapes are also right for these. */
bool same_steps(const struct plan *plan, const struct shape *shapes);
void free_steps(struct plan *plan);
void free_plan(struct plan *plan);

#endif
