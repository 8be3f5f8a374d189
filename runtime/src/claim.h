/* The nodes of a graph that the delegate takes. */
#ifndef LARQ_REP_CLAIM_H
#define LARQ_REP_CLAIM_H

#include "delegate.h"

/* Reports and fails for malformed operators; otherwise an array to give to the runtime, to be freed. */
TfLiteStatus claim(TfLiteContext *context, const struct options *options, TfLiteIntArray **nodes);

#endif
