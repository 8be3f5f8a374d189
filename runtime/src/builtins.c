#include "builtins.h"

#include <string.h>

#include "tensors.h"

static bool same_shape(const TfLiteTensor *a, const TfLiteTensor *b) {
  return a->dims->size == b->dims->size &&
         memcmp(a->dims->data, b->dims->data, (size_t)a->dims->size * sizeof(int)) == 0;
}

/* A number, or one for each channel. */
static bool per_channel(const TfLiteContext *context, int tensor, int channels) {
  const TfLiteTensor *t = &context->tensors[tensor];
  const int64_t count = elements(t);
  return is_constant(context, tensor) && t->type == kTfLiteFloat32 && t->bytes >= (uint64_t)count * 4 &&
         (count == 1 || (count == channels && last_dimension(t) == channels));
}

/* Whether the operands are constants for each channel or tensors of the output's shape, with at least one tensor. */
static bool fits(const TfLiteContext *context, const struct node *node) {
  const TfLiteTensor *y = &context->tensors[node->outputs->data[0]];
  int computed = 0;
  for (int i = 0; i < node->inputs->size; i++) {
    const int t = node->inputs->data[i];
    if (is_constant(context, t)) {
      if (!per_channel(context, t, last_dimension(y))) return false;
    } else {
      if (context->tensors[t].type != kTfLiteFloat32 || !same_shape(&context->tensors[t], y)) return false;
      computed++;
    }
  }
  return computed >= 1;
}

/* A TILE that repeats only the channels. */
static bool repeats_channels(const TfLiteContext *context, const TfLiteIntArray *inputs, int channels) {
  if (inputs->size != 2) return false;
  const TfLiteTensor *x = &context->tensors[inputs->data[0]], *times = &context->tensors[inputs->data[1]];
  const int rank = x->dims->size;
  if (rank < 1 || !is_constant(context, inputs->data[1]) || elements(times) != rank) return false;
  if (times->type != kTfLiteInt32 || times->bytes < (size_t)rank * sizeof(int32_t)) return false;
  for (int i = 0; i < rank - 1; i++)
    if (times->data.i32[i] != 1) return false;
  return (int64_t)times->data.i32[rank - 1] * last_dimension(x) == channels;
}

/* A concatenation of different tensors along the channels, or of one tensor, which repeats it. */
static void read_concatenation(const TfLiteContext *context, const TfLiteConcatenationParams *concatenation,
                               struct node *node) {
  const TfLiteIntArray *in = node->inputs;
  const TfLiteTensor *y = &context->tensors[node->outputs->data[0]];
  const int rank = y->dims->size;
  if (!concatenation || concatenation->activation != kTfLiteActNone ||
      (concatenation->axis != rank - 1 && concatenation->axis != -1))
    return;
  bool copies = true;
  int64_t sum = 0;
  for (int i = 0; i < in->size; i++) {
    const TfLiteTensor *t = &context->tensors[in->data[i]];
    if (is_constant(context, in->data[i]) || t->type != kTfLiteFloat32 || t->dims->size != rank ||
        last_dimension(t) < 1)
      return;
    sum += last_dimension(t);
    copies = copies && in->data[i] == in->data[0];
    for (int j = 0; j < i; j++)
      if (in->data[j] == in->data[i] && in->data[i] != in->data[0]) return;
  }
  if (sum != last_dimension(y)) return;
  if (!copies)
    for (int i = 1; i < in->size; i++)
      if (in->data[i] == in->data[0]) return;
  node->kind = copies ? NODE_REPEAT : NODE_CONCATENATE;
  node->times = in->size;
  node->rank = concatenation->axis < 0 ? 0 : rank;
}

static void read_pool(const TfLiteContext *context, const TfLitePoolParams *pool, bool maximum, struct node *node) {
  const TfLiteIntArray *in = node->inputs;
  const TfLiteTensor *x = &context->tensors[in->data[0]], *y = &context->tensors[node->outputs->data[0]];
  const int longest = maximum ? MAX_POOLED : 2;
  if (!pool || in->size != 1 || pool->activation != kTfLiteActNone || x->type != kTfLiteFloat32 || x->dims->size != 4 ||
      y->dims->size != 4 || is_constant(context, in->data[0]) || pool->filter_height < 1 ||
      pool->filter_height > longest || pool->filter_width < 1 || pool->filter_width > longest ||
      pool->stride_height < 1 || pool->stride_width < 1 || last_dimension(x) != last_dimension(y))
    return;
  node->window = (struct window){.height = pool->filter_height,
                                 .width = pool->filter_width,
                                 .stride_height = pool->stride_height,
                                 .stride_width = pool->stride_width,
                                 .dilation_height = 1,
                                 .dilation_width = 1,
                                 .same = pool->padding == kTfLitePaddingSame};
  node->kind = maximum ? NODE_MAX_POOL : NODE_AVERAGE_POOL;
}

void read_builtin(const TfLiteContext *context, const TfLiteNode *tf_node, int builtin, struct node *node) {
  const TfLiteIntArray *in = node->inputs;
  if (!in || !node->outputs || in->size < 1 || node->outputs->size != 1) return;
  for (int i = 0; i < in->size; i++)
    if (!valid_tensor(context, in->data[i])) return;
  const int output = node->outputs->data[0];
  if (!valid_tensor(context, output)) return;
  const TfLiteTensor *x = &context->tensors[in->data[0]], *y = &context->tensors[output];
  const int channels = last_dimension(y);
  if (channels < 1 || channels > MAX_CHANNELS || elements(y) < 1) return;
  if (builtin == kTfLiteBuiltinQuantize || builtin == kTfLiteBuiltinDequantize) {
    const bool to = builtin == kTfLiteBuiltinQuantize;
    if (in->size == 1 && !is_constant(context, in->data[0]) && same_shape(x, y) && is_quantized(to ? y : x) &&
        (to ? x : y)->type == kTfLiteFloat32)
      node->kind = to ? NODE_TO_INT8 : NODE_FROM_INT8;
    return;
  }
  if (builtin == kTfLiteBuiltinLess) {
    if (in->size == 2 && y->type == kTfLiteBool && fits(context, node)) node->kind = NODE_LESS;
    return;
  }
  if (y->type != kTfLiteFloat32) return;
  const TfLiteArithmeticParams *arithmetic = tf_node->builtin_data;
  switch (builtin) {
    case kTfLiteBuiltinAdd:
    case kTfLiteBuiltinSub:
    case kTfLiteBuiltinMul:
      if (!arithmetic || in->size != 2 || (int)arithmetic->activation < 0 || arithmetic->activation > kTfLiteActRelu6 ||
          !fits(context, node))
        return;
      node->activation = arithmetic->activation;
      node->kind = builtin == kTfLiteBuiltinAdd   ? NODE_ADD
                   : builtin == kTfLiteBuiltinSub ? NODE_SUBTRACT
                                                  : NODE_MULTIPLY;
      return;
    case kTfLiteBuiltinPrelu:
      if (in->size == 2 && is_constant(context, in->data[1]) && fits(context, node)) node->kind = NODE_PRELU;
      return;
    case kTfLiteBuiltinMinimum:
    case kTfLiteBuiltinMaximum:
      if (in->size == 2 && !is_constant(context, in->data[0]) && !is_constant(context, in->data[1]) &&
          fits(context, node))
        node->kind = builtin == kTfLiteBuiltinMinimum ? NODE_MINIMUM : NODE_MAXIMUM;
      return;
    case kTfLiteBuiltinNeg:
      if (in->size == 1 && fits(context, node)) node->kind = NODE_NEGATE;
      return;
    case kTfLiteBuiltinRelu:
    case kTfLiteBuiltinRelu6:
    case kTfLiteBuiltinReluN1To1:
      if (in->size == 1 && fits(context, node))
        node->kind = builtin == kTfLiteBuiltinRelu    ? NODE_RELU
                     : builtin == kTfLiteBuiltinRelu6 ? NODE_RELU6
                                                      : NODE_RELU_N1_TO_1;
      return;
    case kTfLiteBuiltinTile:
      if (x->type == kTfLiteFloat32 && !is_constant(context, in->data[0]) && repeats_channels(context, in, channels)) {
        node->kind = NODE_REPEAT;
        node->rank = x->dims->size;
        node->times = context->tensors[in->data[1]].data.i32[node->rank - 1];
      }
      return;
    case kTfLiteBuiltinConcatenation:
      read_concatenation(context, tf_node->builtin_data, node);
      return;
    case kTfLiteBuiltinAveragePool2d:
    case kTfLiteBuiltinMaxPool2d:
      read_pool(context, tf_node->builtin_data, builtin == kTfLiteBuiltinMaxPool2d, node);
      return;
    default:
      return;
  }
}
