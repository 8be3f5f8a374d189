/* What is computed of each number of a map alone is computed where the number is written. */
#ifndef LARQ_REP_EARLY_H
#define LARQ_REP_EARLY_H

#include "delegate.h"

/* Dense blocks take the signs of all channels so far again and again, each time with other thresholds, and a batch
 * normalisation follows them. A step that does only that need not read all numbers once more: each step that writes
 * some of them does it, too. Signs of what is still read more than once are taken together. False if there is no
 * memory. */
bool compute_early(struct plan *plan);

#endif
