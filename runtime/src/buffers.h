/* The positions of a tensor's pixels. */
#ifndef LARQ_REP_BUFFERS_H
#define LARQ_REP_BUFFERS_H

#include "delegate.h"

/* A packed image with its border. */
struct image {
  uint32_t *data;
  ptrdiff_t row, plane; /* words */
};

static inline size_t element_size(const struct buffer *b) {
  return b->type == kTfLiteInt8 || b->type == kTfLiteBool ? 1 : 4;
}

static inline struct image image_of(const struct buffer *b) {
  const ptrdiff_t row = (ptrdiff_t)(b->left + b->w + b->right) * b->pixel_words;
  return (struct image){(uint32_t *)(void *)b->data + b->top * row + (ptrdiff_t)b->left * b->pixel_words, row,
                        row * (b->top + b->h + b->bottom)};
}

/* The start of a row, counted through all images, of a tensor that is not packed. */
static inline char *row_of(const struct buffer *b, int row) {
  return b->data + (size_t)(row % b->ring) * (size_t)b->w * b->stride;
}

static inline char *pixel_of(const struct buffer *b, int pixel) {
  return row_of(b, pixel / b->w) + (size_t)(pixel % b->w) * b->stride;
}

/* Less than 2^36: numbers are counted in 29 bits, and borders are no wider than twice the image. */
uint64_t buffer_bytes(const struct buffer *buffer);

/* Gives the buffers their shapes, and packed images the borders that windows reach into. */
void shape_buffers(struct plan *plan);

/* Places the buffers in TFLite's tensors and the delegate's memory; reports a tensor that changed its shape. */
TfLiteStatus bind_buffers(TfLiteContext *context, struct plan *plan, char *memory);

/* The number and size of a step's output images. */
void output_images(const struct plan *plan, const struct step *step, int *n, int *h, int *w);

#endif
