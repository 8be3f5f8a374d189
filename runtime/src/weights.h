/* A binary convolution's weights in the layout that its kernels read. */
#ifndef LARQ_REP_WEIGHTS_H
#define LARQ_REP_WEIGHTS_H

#include "convolution.h"

struct threads;

/* The implementation for groups of this size: the given one, or one that pads their weights less or suits them better.
 */
const struct kernels *kernels_of_groups(const struct kernels *kernels, int outputs, int words, int64_t taps);

/* Vectors of a group of outputs. */
int vectors_of(const struct kernels *kernels, int outputs);

/* Sum of a tap's +1 and -1. */
int tap_sum(const struct convolution *convolution, int output, int row, int column);

/* Lays out everything that depends on which taps meet the image, on several threads; does nothing if they are the same
 * as before. False if there is no memory. */
bool lay_out_taps(struct convolution *convolution, struct threads *threads, int num_threads);
void free_taps(struct convolution *convolution);

#endif
