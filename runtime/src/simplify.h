/* The same results with fewer instructions. */
#ifndef LARQ_REP_SIMPLIFY_H
#define LARQ_REP_SIMPLIFY_H

#include "delegate.h"

/* Rewrites the programs of all steps, bit for bit; gives each OP_STORE_SIGNS its thresholds. False if there is no
 * memory. */
bool simplify_programs(struct plan *plan);

#endif
