/* The nodes of a graph that the delegate takes. */
#ifndef LARQ_REP_CLAIM_H
#define LARQ_REP_CLAIM_H

#include "delegate.h"

/* Reports malformed operators and fails; otherwise returns an array for the runtime, which the caller frees. */
TfLiteStatus claim(TfLiteContext *context, const struct options *options, TfLiteIntArray **nodes);

#endif
