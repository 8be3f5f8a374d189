/* Signs are taken where their numbers are written. */
#ifndef LARQ_REP_EARLY_SIGNS_H
#define LARQ_REP_EARLY_SIGNS_H

#include "delegate.h"

/* Dense blocks take the signs of all channels so far again and again, each time with other thresholds. A step that only
 * does that need not read all numbers once more: each step that writes some of them takes their signs, too. Loads what
 * is still read more than once only once. False if there is no memory. */
bool take_signs_early(struct plan *plan);

#endif
