/* Tensors that are made as slices of others. */
#ifndef LARQ_REP_VIEWS_H
#define LARQ_REP_VIEWS_H

#include "delegate.h"

/* If a step copies a tensor into a concatenation, the tensor is computed there in the first place. */
void make_views(struct plan *plan);

#endif
