/* The shapes of what a plan's operators compute, from those that its inputs have now: they change with every resize,
 * and where a TRANSPOSE stands before the operators so may the channels. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "delegate.h"

const char *shape_text(const struct shape *shape, char text[SHAPE_TEXT]) {
  size_t used = 1;
  strcpy(text, "(");
  for (int i = 0; i < shape->rank; i++)
    used += (size_t)snprintf(text + used, SHAPE_TEXT - used, i ? ", %d" : "%d", shape->dims[i]);
  strcpy(text + used, ")");
  return text;
}

bool equal_shapes(const struct shape *a, const struct shape *b) {
  return a->rank == b->rank && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof(int)) == 0;
}

int channels_of_shape(const struct shape *shape) { return shape->rank ? shape->dims[shape->rank - 1] : 1; }

static TfLiteStatus refuse(TfLiteContext *context, const struct operator * op, int tensor, const struct shape *shape,
                           const char *format, ...) {
  char reason[512], text[SHAPE_TEXT];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reason, sizeof reason, format, arguments);
  va_end(arguments);
  context->ReportError(context, "larq-rep: operator %d (%s), tensor %d '%.60s' of shape %s: %s.", op->node,
                       kind_name(op->kind), tensor, tensor_name(context, tensor), shape_text(shape, text), reason);
  return kTfLiteError;
}

/* As numpy and TFLite broadcast: from the last dimension on, equal ones or 1. */
static bool broadcast(const struct shape *a, const struct shape *b, struct shape *result) {
  *result = (struct shape){.rank = a->rank > b->rank ? a->rank : b->rank};
  for (int i = 1; i <= result->rank; i++) {
    const int one = i <= a->rank ? a->dims[a->rank - i] : 1, other = i <= b->rank ? b->dims[b->rank - i] : 1;
    if (one != other && one != 1 && other != 1) return false;
    result->dims[result->rank - i] = one == 1 ? other : one;
  }
  return true;
}

static TfLiteStatus shape_elementwise(TfLiteContext *context, const struct operator * op, const struct shape *shapes,
                                      struct shape *result) {
  const int *in = op->inputs->data;
  char text[SHAPE_TEXT];
  *result = shapes[in[0]];
  if (op->inputs->size == 1) return kTfLiteOk;
  if (!broadcast(&shapes[in[0]], &shapes[in[1]], result) ||
      (op->kind == PRELU && !equal_shapes(result, &shapes[in[0]])))
    return refuse(context, op, in[0], &shapes[in[0]], "the shapes of the operands do not go together, tensor %d '%.60s' has %s",
                  in[1], tensor_name(context, in[1]), shape_text(&shapes[in[1]], text));
  return kTfLiteOk;
}

static TfLiteStatus shape_window(TfLiteContext *context, const struct operator * op, const struct shape *shapes,
                                 struct shape *result) {
  const int input = op->inputs->data[0], words = (op->channels_in + 31) / 32;
  const struct shape *x = &shapes[input];
  const struct window *w = &op->window;
  int before;
  if (x->rank != 4) return refuse(context, op, input, x, "expected rank 4");
  if (op->kind == BCONV && x->dims[3] != words)
    return refuse(context, op, input, x, "expected the %d words a pixel of %d channels", words, op->channels_in);
  *result = *x;
  if (!output_size(x->dims[1], w->height, w->stride_height, w->dilation_height, w->same, &result->dims[1], &before) ||
      !output_size(x->dims[2], w->width, w->stride_width, w->dilation_width, w->same, &result->dims[2], &before))
    return refuse(context, op, input, x, "its window of %d x %d (dilation %d x %d) does not fit", w->height, w->width,
                  w->dilation_height, w->dilation_width);
  if (op->kind == BCONV) result->dims[3] = last_dimension(&context->tensors[op->outputs->data[0]]);
  return kTfLiteOk;
}

static TfLiteStatus shape_concatenation(TfLiteContext *context, const struct operator * op, const struct shape *shapes,
                                        struct shape *result) {
  const int *in = op->inputs->data;
  char text[SHAPE_TEXT];
  *result = shapes[in[0]];
  for (int i = 1; i < op->inputs->size; i++) {
    const struct shape *part = &shapes[in[i]];
    if (part->rank != result->rank || memcmp(part->dims, result->dims, (size_t)(part->rank - 1) * sizeof(int)) ||
        part->dims[part->rank - 1] > MAX_CHANNELS - result->dims[part->rank - 1])
      return refuse(context, op, in[i], part, "the shapes of the operands do not go together, those before have %s",
                    shape_text(result, text));
    result->dims[part->rank - 1] += part->dims[part->rank - 1];
  }
  return kTfLiteOk;
}

static TfLiteStatus find_shape(TfLiteContext *context, const struct operator * op, const struct shape *shapes,
                               struct shape *result) {
  const int input = op->inputs->data[0];
  const struct shape *x = &shapes[input];
  const int channels = channels_of_shape(x), declared = last_dimension(&context->tensors[op->outputs->data[0]]);
  if (takes_numbers_one_by_one(op->kind)) return shape_elementwise(context, op, shapes, result);
  if (x->rank < 1) return refuse(context, op, input, x, "expected rank 1 or more");
  if (op->rank && op->rank != x->rank) return refuse(context, op, input, x, "expected rank %d", op->rank);
  *result = *x;
  switch (op->kind) {
    case QUANTIZE:
      result->dims[x->rank - 1] = (channels + UNIT - 1) / UNIT;
      return kTfLiteOk;
    case DEQUANTIZE:
      if (channels != (declared + UNIT - 1) / UNIT)
        return refuse(context, op, input, x, "expected the %d words a pixel of %d channels", (declared + UNIT - 1) / UNIT,
                      declared);
      result->dims[x->rank - 1] = declared;
      return kTfLiteOk;
    case TILE_CHANNELS:
      if (channels > MAX_CHANNELS / op->times)
        return refuse(context, op, input, x, "expected up to %d channels, to be repeated %d times",
                      MAX_CHANNELS / op->times, op->times);
      result->dims[x->rank - 1] = channels * op->times;
      return kTfLiteOk;
    case CONCATENATE:
      return shape_concatenation(context, op, shapes, result);
    default:
      return shape_window(context, op, shapes, result);
  }
}

/* Numbers, or packed words, are counted in 32 bits, and their bytes too. */
static bool countable(const struct shape *shape) {
  int64_t count = 1;
  for (int i = 0; i < shape->rank; i++) {
    if (shape->dims[i] < 0 || (shape->dims[i] && count > INT32_MAX / 4 / shape->dims[i])) return false;
    count *= shape->dims[i];
  }
  return channels_of_shape(shape) >= 1 && channels_of_shape(shape) <= MAX_CHANNELS;
}

TfLiteStatus find_shapes(TfLiteContext *context, const struct plan *plan, struct shape *shapes) {
  static const char expected[] = "expected 1 to %d channels and fewer than 2^29 numbers, or packed words";
  for (int i = 0; i < plan->op_count; i++) {
    const struct operator * op = &plan->ops[i];
    for (int j = 0; j < op->inputs->size; j++) {
      const int t = op->inputs->data[j];
      if (t < 0 || plan->producer[t] >= 0) continue;
      const TfLiteIntArray *dims = context->tensors[t].dims;
      if (!dims || dims->size > MAX_RANK) {
        context->ReportError(context, "larq-rep: operator %d (%s), tensor %d '%.60s': expected up to %d dimensions.",
                             op->node, kind_name(op->kind), t, tensor_name(context, t), MAX_RANK);
        return kTfLiteError;
      }
      shapes[t].rank = dims->size;
      memcpy(shapes[t].dims, dims->data, (size_t)dims->size * sizeof(int));
      if (!is_constant(context, t) && !countable(&shapes[t]))
        return refuse(context, op, t, &shapes[t], expected, MAX_CHANNELS);
    }
    struct shape result;
    if (find_shape(context, op, shapes, &result) != kTfLiteOk) return kTfLiteError;
    const int output = op->outputs->data[0];
    if (!countable(&result)) return refuse(context, op, output, &result, expected, MAX_CHANNELS);
    shapes[output] = result;
  }
  return kTfLiteOk;
}
