#include "buffers.h"

#include <string.h>

#include "convolution.h"
#include "shapes.h"
#include "tensors.h"

uint64_t buffer_bytes(const struct buffer *b) {
  const uint64_t rows = b->bits ? (uint64_t)b->n * (uint64_t)(b->top + b->h + b->bottom) : (uint64_t)b->ring;
  return (rows * (uint64_t)(b->left + b->w + b->right) * (uint64_t)b->pixel_words * element_size(b) + 63) / 64 * 64;
}

static void set_shape(struct buffer *b, const struct shape *shape) {
  b->rank = shape->rank;
  memcpy(b->dims, shape->dims, sizeof b->dims);
  b->pixel_words = channels_of_shape(shape);
  b->n = b->h = b->w = 1;
  if (shape->rank == 4) {
    b->n = shape->dims[0];
    b->h = shape->dims[1];
    b->w = shape->dims[2];
  } else {
    for (int i = 0; i < shape->rank - 1; i++) b->n *= shape->dims[i];
  }
  b->top = b->left = b->bottom = b->right = 0;
}

static int larger(int a, int b) { return a > b ? a : b; }

void shape_buffers(struct plan *plan) {
  for (int i = 0; i < plan->buffer_count; i++)
    set_shape(&plan->buffers[i], &plan->shapes[plan->buffers[i].shaped_like]);
  for (int s = 0; s < plan->step_count; s++)
    for (struct convolution *conv = plan->steps[s].convolution; conv; conv = conv->next) {
      struct buffer *source = &plan->buffers[conv->source];
      place_windows(conv, source);
      conv->grain = plan->steps[s].convolution->grain;
      if (source->external) continue;
      source->top = larger(conv->rows.before, source->top);
      source->left = larger(conv->columns.before, source->left);
      source->bottom = larger(conv->rows.behind, source->bottom);
      source->right = larger(conv->columns.behind, source->right);
    }
}

/* Uses the memory of TFLite's tensor; false if the tensor does not have the planned shape. */
static bool bind_external(struct buffer *b, const TfLiteTensor *t) {
  const size_t bytes = (size_t)b->n * (size_t)b->h * (size_t)b->w * (size_t)b->pixel_words * element_size(b);
  b->data = t->data.data;
  bool same = t->dims && t->dims->size == b->rank && t->bytes >= bytes;
  for (int d = 0; same && d < b->rank; d++) same = t->dims->data[d] == b->dims[d];
  return same && (b->data || !t->bytes);
}

TfLiteStatus bind_buffers(TfLiteContext *context, struct plan *plan, char *memory) {
  for (int i = 0; i < plan->buffer_count; i++) {
    struct buffer *b = &plan->buffers[i];
    if (!b->external || bind_external(b, &context->tensors[b->tensor])) continue;
    context->ReportError(context, "larq-rep: tensor %d '%.60s' changed its shape after it was allocated.", b->tensor,
                         tensor_name(context, b->tensor));
    return kTfLiteError;
  }
  for (int i = 0; i < plan->buffer_count; i++) {
    struct buffer *b = &plan->buffers[i];
    const struct buffer *whole = b;
    size_t channel = 0;
    for (; whole->view_of >= 0; whole = &plan->buffers[whole->view_of]) channel += (size_t)whole->view_channel;
    if (!whole->external) b->data = memory + whole->offset;
    if (b != whole) b->data = (whole->external ? whole->data : b->data) + channel * element_size(b);
    b->stride = (size_t)whole->pixel_words * element_size(b);
  }
  return kTfLiteOk;
}

void output_images(const struct plan *plan, const struct step *step, int *n, int *h, int *w) {
  const struct buffer *source = &plan->buffers[step->source];
  *n = source->n;
  *h = source->h;
  *w = source->w;
  if (step->kind == STEP_CONVOLUTION) {
    *h = step->convolution->rows.out;
    *w = step->convolution->columns.out;
  } else if (step->target >= 0) {
    *n = plan->buffers[step->target].n;
    *h = plan->buffers[step->target].h;
    *w = plan->buffers[step->target].w;
  }
}
