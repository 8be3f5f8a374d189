/* A binary convolution's weights, as its kernels read them. */
#ifndef LARQ_REP_WEIGHTS_H
#define LARQ_REP_WEIGHTS_H

#include "convolution.h"

/* The implementation for groups of so many outputs and words: the given one, or one that pads their weights less. */
const struct kernels *kernels_of_groups(const struct kernels *kernels, int outputs, int words);

/* Vectors of a group of outputs. */
int vectors_of(const struct kernels *kernels, int outputs);

/* Of the +1 and -1 of a tap. */
int tap_sum(const struct convolution *convolution, int output, int row, int column);

/* Lays out everything that depends on which taps meet the image; nothing to do where these are the same as before.
 * False if there is no memory. */
bool lay_out_taps(struct convolution *convolution);
void free_taps(struct convolution *convolution);

#endif
