/* Binary convolutions, prepared for the kernels. */
#ifndef LARQ_REP_CONVOLUTION_H
#define LARQ_REP_CONVOLUTION_H

#include "delegate.h"
#include "windows.h"

struct threads;

struct convolution {
  struct convolution *next;      /* of those that the step sums */
  int source;                    /* buffer */
  size_t scratch;                /* bytes of a thread's scratch before its sums */
  const struct kernels *kernels; /* of its sums */
  struct window window;
  struct values filter;
  int channels_in, channels_out, pad_zero;
  struct axis rows, columns;
  struct gemm gemm;                         /* of the taps that meet the image */
  struct range packed_rows, packed_columns; /* the taps whose weights are laid out */
  int period;             /* channels whose accumulators and constants are laid out: whole units if repeated */
  size_t acc_stride;      /* of a pixel's accumulators */
  int tile_pixels, grain; /* pixels whose sums the kernel computes, and for which the program runs, at once */
  float *scale, *shift;   /* of acc, in whole units */
  float *multiplier;      /* of the correction of zero padding */
  float clamp_low, clamp_high;
  bool clamped;
  int32_t *missed;   /* by output channel: bits that differ in taps that never meet the image; NULL without them */
  int32_t *all_sums; /* of zero padding, by output channel: the sum of all weights */
  int32_t *sums;     /* of zero padding, [row][column][output channel]: of the weights before that tap */
  float *borders;    /* addends, one row of whole units for each pair of classes */
  int *row_class, *column_class;
  int column_classes;
  uint32_t *padded; /* a copy of an external input with its border */
  size_t border_bytes, padded_bytes;
  int32_t *tap_offsets;
  uint32_t *weights;
};

enum { BLOCK = 2 * UNIT }; /* outputs that can be computed by themselves, at least */
/* The most blocks of outputs; `copied` if the results are. */
static inline int most_blocks(const struct convolution *convolution, bool copied) {
  const int outputs = convolution->channels_out;
  const bool whole = convolution->gemm.groups > 1 || convolution->next || (copied && outputs % UNIT);
  return whole ? 1 : (outputs + BLOCK - 1) / BLOCK;
}

/* Everything that does not depend on the image's size; NULL if there is no memory. */
struct convolution *make_convolution(TfLiteContext *context, const struct node *node, const struct kernels *kernels);
void free_convolution(struct convolution *convolution); /* and the next ones */
/* The instruction that makes results of its sums. */
static inline enum opcode code_of_results(const struct convolution *conv) {
  return conv->clamped ? OP_CLAMPED : OP_ACCUMULATED;
}
/* Bytes of its weights and of everything else in it. */
size_t packed_bytes(const struct convolution *convolution);
size_t constant_bytes(const struct convolution *convolution);
/* Lays out its constants so that whole units of all copies of the results, `channels` in total, can be loaded beyond
 * one period; false if there is no memory. */
bool repeat_results(struct convolution *convolution, int channels);
/* Finds the size of the output, and the border of the input that the windows reach into. */
void place_windows(struct convolution *convolution, const struct buffer *input);
/* Lays out weights and borders once the input's layout is known; false if there is no memory. */
bool prepare_convolution(struct convolution *convolution, const struct buffer *input, struct threads *threads,
                         int num_threads);

#endif
