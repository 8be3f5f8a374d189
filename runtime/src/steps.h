/* The steps of a plan. */
#ifndef LARQ_REP_STEPS_H
#define LARQ_REP_STEPS_H

#include "delegate.h"

/* Makes the steps for plan->shapes, which replace the plan's steps. */
TfLiteStatus make_steps(TfLiteContext *context, struct plan *plan, const struct options *options);

#endif
