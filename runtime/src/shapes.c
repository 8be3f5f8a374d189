/* The shapes of the results of a plan's operators, from the present shapes of its inputs: they change with every
 * resize, and if a TRANSPOSE precedes the operators, the channels may change as well. */
#include "shapes.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "operators.h"
#include "tensors.h"
#include "windows.h"

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

bool is_broadcast(const struct shape *shapes, const struct node *node, int tensor) {
  return node_types[node->kind].elementwise && !equal_shapes(&shapes[tensor], &shapes[node->outputs->data[0]]);
}

static TfLiteStatus refuse_shape(TfLiteContext *context, const struct node *node, int tensor, const struct shape *shape,
                                 const char *format, ...) {
  char reason[512], text[SHAPE_TEXT];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reason, sizeof reason, format, arguments);
  va_end(arguments);
  context->ReportError(context, "larq-rep: operator %d (%s), tensor %d '%.60s' of shape %s: %s.", node->index,
                       node_types[node->kind].name, tensor, tensor_name(context, tensor), shape_text(shape, text),
                       reason);
  return kTfLiteError;
}

/* Broadcasts like numpy and TFLite: from the last dimension on, sizes are equal or 1. */
static bool broadcast(const struct shape *a, const struct shape *b, struct shape *result) {
  *result = (struct shape){.rank = a->rank > b->rank ? a->rank : b->rank};
  for (int i = 1; i <= result->rank; i++) {
    const int one = i <= a->rank ? a->dims[a->rank - i] : 1, other = i <= b->rank ? b->dims[b->rank - i] : 1;
    if (one != other && one != 1 && other != 1) return false;
    result->dims[result->rank - i] = one == 1 ? other : one;
  }
  return true;
}

static TfLiteStatus shape_elementwise(TfLiteContext *context, const struct node *node, const struct shape *shapes,
                                      struct shape *result) {
  const int *in = node->inputs->data;
  char text[SHAPE_TEXT];
  *result = shapes[in[0]];
  if (node->inputs->size == 1) return kTfLiteOk;
  if (!broadcast(&shapes[in[0]], &shapes[in[1]], result) ||
      (node->kind == NODE_PRELU && !equal_shapes(result, &shapes[in[0]])))
    return refuse_shape(context, node, in[0], &shapes[in[0]],
                        "the shapes of the operands do not go together, tensor %d '%.60s' has %s", in[1],
                        tensor_name(context, in[1]), shape_text(&shapes[in[1]], text));
  return kTfLiteOk;
}

static TfLiteStatus shape_window(TfLiteContext *context, const struct node *node, const struct shape *shapes,
                                 struct shape *result) {
  const int input = node->inputs->data[0], words = (node->channels_in + 31) / 32;
  const struct shape *x = &shapes[input];
  const struct window *w = &node->window;
  int before;
  if (x->rank != 4) return refuse_shape(context, node, input, x, "expected rank 4");
  if (node->kind == NODE_BCONV && x->dims[3] != words)
    return refuse_shape(context, node, input, x, "expected the %d words a pixel of %d channels", words,
                        node->channels_in);
  *result = *x;
  if (!output_size(x->dims[1], w->height, w->stride_height, w->dilation_height, w->same, &result->dims[1], &before) ||
      !output_size(x->dims[2], w->width, w->stride_width, w->dilation_width, w->same, &result->dims[2], &before))
    return refuse_shape(context, node, input, x, "its window of %d x %d (dilation %d x %d) does not fit", w->height,
                        w->width, w->dilation_height, w->dilation_width);
  if (node->kind == NODE_BCONV) result->dims[3] = last_dimension(&context->tensors[node->outputs->data[0]]);
  return kTfLiteOk;
}

static TfLiteStatus shape_concatenation(TfLiteContext *context, const struct node *node, const struct shape *shapes,
                                        struct shape *result) {
  const int *in = node->inputs->data;
  char text[SHAPE_TEXT];
  *result = shapes[in[0]];
  for (int i = 1; i < node->inputs->size; i++) {
    const struct shape *part = &shapes[in[i]];
    if (part->rank != result->rank || memcmp(part->dims, result->dims, (size_t)(part->rank - 1) * sizeof(int)) ||
        part->dims[part->rank - 1] > MAX_CHANNELS - result->dims[part->rank - 1])
      return refuse_shape(context, node, in[i], part,
                          "the shapes of the operands do not go together, those before have %s",
                          shape_text(result, text));
    result->dims[part->rank - 1] += part->dims[part->rank - 1];
  }
  return kTfLiteOk;
}

static TfLiteStatus find_shape(TfLiteContext *context, const struct node *node, const struct shape *shapes,
                               struct shape *result) {
  const int input = node->inputs->data[0];
  const struct shape *x = &shapes[input];
  const int channels = channels_of_shape(x), declared = last_dimension(&context->tensors[node->outputs->data[0]]);
  if (node_types[node->kind].elementwise) return shape_elementwise(context, node, shapes, result);
  if (x->rank < 1) return refuse_shape(context, node, input, x, "expected rank 1 or more");
  if (node->rank && node->rank != x->rank) return refuse_shape(context, node, input, x, "expected rank %d", node->rank);
  *result = *x;
  switch (node->kind) {
    case NODE_QUANTIZE:
      result->dims[x->rank - 1] = (channels + UNIT - 1) / UNIT;
      return kTfLiteOk;
    case NODE_DEQUANTIZE:
      if (channels != (declared + UNIT - 1) / UNIT)
        return refuse_shape(context, node, input, x, "expected the %d words a pixel of %d channels",
                            (declared + UNIT - 1) / UNIT, declared);
      result->dims[x->rank - 1] = declared;
      return kTfLiteOk;
    case NODE_TO_INT8:
    case NODE_FROM_INT8:
      return kTfLiteOk;
    case NODE_REPEAT:
      if (channels > MAX_CHANNELS / node->times)
        return refuse_shape(context, node, input, x, "expected up to %d channels, to be repeated %d times",
                            MAX_CHANNELS / node->times, node->times);
      result->dims[x->rank - 1] = channels * node->times;
      return kTfLiteOk;
    case NODE_CONCATENATE:
      return shape_concatenation(context, node, shapes, result);
    default:
      return shape_window(context, node, shapes, result);
  }
}

/* Numbers, or packed words, and their bytes are counted in 32 bits. */
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
  for (int i = 0; i < plan->node_count; i++) {
    const struct node *node = &plan->nodes[i];
    for (int j = 0; j < node->inputs->size; j++) {
      const int t = node->inputs->data[j];
      if (t < 0 || plan->producer[t] >= 0) continue;
      const TfLiteIntArray *dims = context->tensors[t].dims;
      if (!dims || dims->size > MAX_RANK) {
        context->ReportError(context, "larq-rep: operator %d (%s), tensor %d '%.60s': expected up to %d dimensions.",
                             node->index, node_types[node->kind].name, t, tensor_name(context, t), MAX_RANK);
        return kTfLiteError;
      }
      shapes[t].rank = dims->size;
      memcpy(shapes[t].dims, dims->data, (size_t)dims->size * sizeof(int));
      if (!is_constant(context, t) && !countable(&shapes[t]))
        return refuse_shape(context, node, t, &shapes[t], expected, MAX_CHANNELS);
    }
    struct shape result;
    if (find_shape(context, node, shapes, &result) != kTfLiteOk) return kTfLiteError;
    const int output = node->outputs->data[0];
    if (!countable(&result)) return refuse_shape(context, node, output, &result, expected, MAX_CHANNELS);
    shapes[output] = result;
  }
  return kTfLiteOk;
}
