/* What zero padding adds to a binary convolution where its window leaves the image. */
#ifndef LARQ_REP_BORDERS_H
#define LARQ_REP_BORDERS_H

#include "convolution.h"

/* Sums the weights of all taps, and of those before each row and column: what any part of a window weighs is then
 * a matter of four of these sums. False if there is no memory. */
bool sum_weights(struct convolution *convolution);

/* The addends of each kind of border, from those sums; false if there is no memory. */
bool prepare_borders(struct convolution *convolution, const struct buffer *input);

#endif
