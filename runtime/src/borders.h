/* The addends of zero padding for a binary convolution whose window leaves the image. */
#ifndef LARQ_REP_BORDERS_H
#define LARQ_REP_BORDERS_H

#include "convolution.h"

/* Sums the weights of all taps, and of those before each row and column: four of these sums then give the weight of
 * any part of a window. False if there is no memory. */
bool sum_weights(struct convolution *convolution);

/* Computes the addends of each kind of border from those sums; false if there is no memory. */
bool prepare_borders(struct convolution *convolution, const struct buffer *input);

#endif
