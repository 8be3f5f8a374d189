/* Sums of binary convolutions that one step makes. */
#ifndef LARQ_REP_SUMS_H
#define LARQ_REP_SUMS_H

#include "planner.h"

/* ((y1 + y2) + y3) + ..., or ((x + y1) + y2) + ... of a tensor x, with the convolutions' results y. */
struct sum {
  int count;
  int loaded;                   /* the tensor x, or -1 */
  int convolutions[MAX_SUMMED]; /* positions in nodes, in the order of the sum */
  int additions[MAX_SUMMED];    /* of each convolution; the first may be -1 */
};

/* Finds the sums of which nothing else reads a part, and holds their operators: the last convolution in the graph makes
 * the whole sum. False if there is no memory. */
bool find_sums(struct planner *p);

/* The sum that ends with an addition. */
struct sum sum_of(const struct planner *p, int addition);

/* Holds the sum's operators, or no longer. */
void hold_sum(struct planner *p, const struct sum *sum, bool held);

#endif
