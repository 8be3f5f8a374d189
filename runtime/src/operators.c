/* Reads the nodes of a graph: which operators they are, and whether they are well formed. */
#include <limits.h>
#include <string.h>

#include "delegate.h"

static const char *const names[] = {
    "?",   "LceQuantize", "LceDequantize", "LceBconv2d",   "LceBMaxPool2d", "ADD",  "SUB",          "MUL",
    "PRELU", "RELU",      "RELU6",         "RELU_N1_TO_1", "TILE",          "CONCATENATION", "AVERAGE_POOL_2D",
    "MAX_POOL_2D",
};

const char *kind_name(enum kind kind) { return names[kind]; }

bool is_constant(const TfLiteContext *context, int tensor) {
  const TfLiteTensor *t = &context->tensors[tensor];
  return t->allocation_type == kTfLiteMmapRo && t->data.data;
}

const char *tensor_name(const TfLiteContext *context, int tensor) {
  const bool named = tensor >= 0 && (size_t)tensor < context->tensors_size && context->tensors[tensor].name;
  return named ? context->tensors[tensor].name : "";
}

bool takes_numbers_one_by_one(enum kind kind) { return kind >= ADD && kind <= RELU_N1_TO_1; }

int last_dimension(const TfLiteTensor *tensor) {
  return tensor->dims && tensor->dims->size > 0 ? tensor->dims->data[tensor->dims->size - 1] : 0;
}

static int64_t elements(const TfLiteTensor *tensor) {
  int64_t count = 1;
  for (int i = 0; tensor->dims && i < tensor->dims->size; i++) {
    const int d = tensor->dims->data[i];
    if (d < 0 || (d > 0 && count > INT_MAX / d)) return -1;
    count *= d;
  }
  return count;
}

static bool valid_tensor(const TfLiteContext *context, int tensor) {
  return tensor >= 0 && (size_t)tensor < context->tensors_size && context->tensors[tensor].dims &&
         context->tensors[tensor].dims->size <= MAX_RANK;
}

/* The values of a tensor that is a constant, or that FILL, which LCE's converter writes for filters whose weights are
 * all alike, makes of one. Its node stands before its reader's. */
static bool known_values(TfLiteContext *context, int reader, int tensor, struct values *values) {
  const TfLiteTensor *t = &context->tensors[tensor];
  *values = (struct values){t->data.data, 1};
  if (is_constant(context, tensor)) return t->bytes >= (uint64_t)elements(t) * 4;
  for (int i = reader - 1; i >= 0; i--) {
    TfLiteNode *node;
    TfLiteRegistration *registration;
    if (context->GetNodeAndRegistration(context, i, &node, &registration) != kTfLiteOk) return false;
    if (registration->builtin_code != kTfLiteBuiltinFill || !node->inputs || node->inputs->size != 2 ||
        !node->outputs || node->outputs->size != 1 || node->outputs->data[0] != tensor)
      continue;
    const int value = node->inputs->data[1];
    if (!valid_tensor(context, value) || !is_constant(context, value) || context->tensors[value].type != t->type ||
        context->tensors[value].bytes < 4)
      return false;
    *values = (struct values){context->tensors[value].data.data, 0};
    return true;
  }
  return false;
}

/* An LCE operator that cannot be run: says which, which tensor, and why. */
static TfLiteStatus malformed(TfLiteContext *context, const struct operator * op, int tensor, const char *expected,
                              long found) {
  context->ReportError(context, "larq-rep: operator %d (%s), tensor %d '%.60s': expected %s, found %ld.", op->node,
                       kind_name(op->kind), tensor, tensor_name(context, tensor), expected, found);
  return kTfLiteError;
}

static TfLiteStatus read_option(TfLiteContext *context, const TfLiteNode *node, const struct operator * op,
                                const char *key, int low, int high, int *value) {
  int64_t found;
  if (node->custom_initial_data_size <= 0 ||
      !flexbuffer_int(node->custom_initial_data, (size_t)node->custom_initial_data_size, key, &found)) {
    context->ReportError(context, "larq-rep: operator %d (%s): its options lack '%s' or are damaged.", op->node,
                         kind_name(op->kind), key);
    return kTfLiteError;
  }
  if (found < low || found > high) {
    context->ReportError(context, "larq-rep: operator %d (%s): option '%s' should be %d to %d, found %lld.", op->node,
                         kind_name(op->kind), key, low, high, (long long)found);
    return kTfLiteError;
  }
  *value = (int)found;
  return kTfLiteOk;
}

#define OPTION(key, low, high, target) \
  if (read_option(context, node, op, key, low, high, target) != kTfLiteOk) return kTfLiteError
#define PACKED "packed signs, which are type 2 (int32)"
#define EXPECT(condition, tensor, expected, found) \
  if (!(condition)) return malformed(context, op, tensor, expected, (long)(found))

static TfLiteStatus read_bconv(TfLiteContext *context, const TfLiteNode *node, struct operator * op) {
  const TfLiteIntArray *in = op->inputs;
  const int output = op->outputs->data[0];
  int padding, activation;
  OPTION("channels_in", 1, MAX_CHANNELS, &op->channels_in);
  OPTION("dilation_height_factor", 1, 1 << 15, &op->window.dilation_height);
  OPTION("dilation_width_factor", 1, 1 << 15, &op->window.dilation_width);
  OPTION("fused_activation_function", 0, 3, &activation);
  OPTION("pad_values", 0, 1, &op->pad_values);
  OPTION("padding", 0, 1, &padding);
  OPTION("stride_height", 1, 1 << 15, &op->window.stride_height);
  OPTION("stride_width", 1, 1 << 15, &op->window.stride_width);
  op->activation = (TfLiteFusedActivation)activation;
  op->window.same = padding == 0;

  const TfLiteTensor *x = &context->tensors[in->data[0]], *y = &context->tensors[output];
  EXPECT(x->type == kTfLiteInt32, in->data[0], PACKED, x->type);
  EXPECT(x->dims->size == 4, in->data[0], "rank 4", x->dims->size);
  const int words = (op->channels_in + 31) / 32;
  EXPECT(last_dimension(x) == words, in->data[0], "ceil(channels_in / 32) words a pixel", last_dimension(x));
  EXPECT(y->dims->size == 4, output, "rank 4", y->dims->size);
  EXPECT(valid_tensor(context, in->data[1]), in->data[1], "a filter", -1);
  const TfLiteTensor *filter = &context->tensors[in->data[1]];
  EXPECT(filter->type == kTfLiteInt32, in->data[1], PACKED, filter->type);
  EXPECT(filter->dims->size == 4, in->data[1], "a filter of rank 4", filter->dims->size);
  const int *shape = filter->dims->data;
  for (int i = 0; i < 4; i++)
    EXPECT(shape[i] >= 1 && shape[i] <= (i == 1 || i == 2 ? 1 << 12 : MAX_CHANNELS), in->data[1],
           "a filter of sensible size", shape[i]);
  const int64_t weights = (int64_t)shape[1] * shape[2] * shape[3] * 32;
  EXPECT(elements(filter) >= 0 && weights < 1 << 23, in->data[1], "fewer than 2^23 weights an output", weights);
  EXPECT(known_values(context, op->node, in->data[1], &op->values[1]), in->data[1],
         "a constant filter of as many bytes as its shape says", filter->bytes);
  EXPECT(words % shape[3] == 0, in->data[1], "filter words that divide those of the input", shape[3]);
  const int groups = words / shape[3];
  EXPECT(groups == 1 || op->channels_in % (32 * groups) == 0, in->data[1],
         "groups of a multiple of 32 channels", op->channels_in);
  EXPECT(shape[0] % groups == 0, in->data[1], "output channels that the groups divide", shape[0]);
  op->window.height = shape[1];
  op->window.width = shape[2];
  /* A threshold stands for the activation too: LCE's converter has worked it in. */
  const bool bits = y->type == kTfLiteInt32;
  if (bits) op->activation = kTfLiteActNone;
  EXPECT(!op->window.same || op->pad_values == 1 || shape[1] * shape[2] == 1 || op->activation == kTfLiteActNone, output,
         "no fused activation with zero padding", op->activation);

  EXPECT(bits || y->type == kTfLiteFloat32 || y->type == kTfLiteInt8, output, "type 1 (float32), 9 (int8) or 2 (packed signs)",
         y->type);
  EXPECT(last_dimension(y) == (bits ? (shape[0] + 31) / 32 : shape[0]), output, "the filter's output channels",
         last_dimension(y));
  for (int i = bits ? 4 : 2; i < (bits ? 5 : 4); i++) {
    const int t = in->data[i];
    EXPECT(valid_tensor(context, t), t, i == 4 ? "a threshold" : "a multiplier and a bias", -1);
    const TfLiteTensor *c = &context->tensors[t];
    EXPECT(c->type == (i == 4 ? kTfLiteInt32 : kTfLiteFloat32), t, i == 4 ? "type 2 (int32)" : "type 1 (float32)",
           c->type);
    EXPECT(c->dims->size == 1, t, "rank 1", c->dims->size);
    EXPECT(c->dims->data[0] == shape[0], t, "a value for each output channel", c->dims->data[0]);
    EXPECT(known_values(context, op->node, t, &op->values[i]), t, "a constant of 4 bytes a channel", c->bytes);
  }
  if (y->type == kTfLiteInt8)
    EXPECT(y->params.scale > 0, output, "a positive scale", 0);
  return kTfLiteOk;
}

static TfLiteStatus read_custom(TfLiteContext *context, const TfLiteNode *node, struct operator * op) {
  const int count = op->kind == BCONV ? 5 : 1;
  EXPECT(op->inputs && op->outputs && op->inputs->size == count && op->outputs->size == 1, -1,
         count == 5 ? "5 inputs and one output" : "one input and one output", op->inputs ? op->inputs->size : 0);
  const int input = op->inputs->data[0], output = op->outputs->data[0];
  EXPECT(valid_tensor(context, input), input, "an input", -1);
  EXPECT(valid_tensor(context, output), output, "an output", -1);
  const TfLiteTensor *x = &context->tensors[input], *y = &context->tensors[output];
  if (op->kind == BCONV) return read_bconv(context, node, op);
  EXPECT(x->dims->size >= 1, input, "rank 1 or more", 0);
  EXPECT(x->dims->size == y->dims->size, output, "the rank of the input", y->dims->size);
  if (op->kind == QUANTIZE || op->kind == DEQUANTIZE) {
    const TfLiteTensor *wide = op->kind == QUANTIZE ? x : y, *packed = op->kind == QUANTIZE ? y : x;
    EXPECT(wide->type == kTfLiteFloat32 || wide->type == kTfLiteInt8 || wide->type == kTfLiteBool,
           op->kind == QUANTIZE ? input : output, "type 1 (float32), 9 (int8) or 6 (bool)", wide->type);
    EXPECT(packed->type == kTfLiteInt32, op->kind == QUANTIZE ? output : input, PACKED, packed->type);
    EXPECT(last_dimension(wide) >= 1 && last_dimension(wide) <= MAX_CHANNELS, op->kind == QUANTIZE ? input : output,
           "a number of channels", last_dimension(wide));
    EXPECT(last_dimension(packed) == (last_dimension(wide) + 31) / 32, op->kind == QUANTIZE ? output : input,
           "ceil(channels / 32) words", last_dimension(packed));
    /* The sign of an int8 number needs its zero point only, which is 0 where a file gives none. */
    if (wide->type == kTfLiteInt8 && op->kind == DEQUANTIZE) EXPECT(wide->params.scale > 0, output, "a positive scale", 0);
    return kTfLiteOk;
  }
  int padding;
  OPTION("filter_height", 1, 1 << 15, &op->window.height);
  OPTION("filter_width", 1, 1 << 15, &op->window.width);
  OPTION("padding", 0, 1, &padding);
  OPTION("stride_height", 1, 1 << 15, &op->window.stride_height);
  OPTION("stride_width", 1, 1 << 15, &op->window.stride_width);
  op->window.same = padding == 0;
  op->window.dilation_height = op->window.dilation_width = 1;
  EXPECT(x->type == kTfLiteInt32, input, PACKED, x->type);
  EXPECT(x->dims->size == 4, input, "rank 4", x->dims->size);
  EXPECT(y->type == kTfLiteInt32, output, PACKED, y->type);
  EXPECT(last_dimension(y) == last_dimension(x), output, "the words of the input", last_dimension(y));
  EXPECT(last_dimension(x) >= 1 && last_dimension(x) <= MAX_CHANNELS, input, "words", last_dimension(x));
  return kTfLiteOk;
}

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

/* Whether the operands are constants for each channel or tensors of the output's shape, one of these at least. */
static bool fits(const TfLiteContext *context, const struct operator * op) {
  const TfLiteTensor *y = &context->tensors[op->outputs->data[0]];
  int computed = 0;
  for (int i = 0; i < op->inputs->size; i++) {
    const int t = op->inputs->data[i];
    if (is_constant(context, t)) {
      if (!per_channel(context, t, last_dimension(y))) return false;
    } else {
      if (context->tensors[t].type != kTfLiteFloat32 || !same_shape(&context->tensors[t], y)) return false;
      computed++;
    }
  }
  return computed >= 1;
}

/* A TILE that repeats the channels only. */
static bool tiles_channels(const TfLiteContext *context, const TfLiteIntArray *inputs, int channels) {
  if (inputs->size != 2) return false;
  const TfLiteTensor *x = &context->tensors[inputs->data[0]], *times = &context->tensors[inputs->data[1]];
  const int rank = x->dims->size;
  if (rank < 1 || !is_constant(context, inputs->data[1]) || elements(times) != rank) return false;
  if (times->type != kTfLiteInt32 || times->bytes < (size_t)rank * sizeof(int32_t)) return false;
  for (int i = 0; i < rank - 1; i++)
    if (times->data.i32[i] != 1) return false;
  return (int64_t)times->data.i32[rank - 1] * last_dimension(x) == channels;
}

static void read_builtin(const TfLiteContext *context, const TfLiteNode *node, int builtin, struct operator * op) {
  const TfLiteIntArray *in = op->inputs;
  if (!in || !op->outputs || in->size < 1 || op->outputs->size != 1) return;
  for (int i = 0; i < in->size; i++)
    if (!valid_tensor(context, in->data[i])) return;
  const int output = op->outputs->data[0];
  if (!valid_tensor(context, output)) return;
  const TfLiteTensor *x = &context->tensors[in->data[0]], *y = &context->tensors[output];
  const int channels = last_dimension(y);
  if (y->type != kTfLiteFloat32 || channels < 1 || channels > MAX_CHANNELS || elements(y) < 1) return;
  const TfLiteArithmeticParams *arithmetic = node->builtin_data;
  const TfLiteConcatenationParams *concatenation = node->builtin_data;
  const TfLitePoolParams *pool = node->builtin_data;
  switch (builtin) {
    case kTfLiteBuiltinAdd:
    case kTfLiteBuiltinSub:
    case kTfLiteBuiltinMul:
      if (!arithmetic || in->size != 2 || (int)arithmetic->activation < 0 || arithmetic->activation > kTfLiteActRelu6 ||
          !fits(context, op))
        return;
      op->activation = arithmetic->activation;
      op->kind = builtin == kTfLiteBuiltinAdd ? ADD : builtin == kTfLiteBuiltinSub ? SUBTRACT : MULTIPLY;
      return;
    case kTfLiteBuiltinPrelu:
      if (in->size == 2 && is_constant(context, in->data[1]) && fits(context, op)) op->kind = PRELU;
      return;
    case kTfLiteBuiltinRelu:
    case kTfLiteBuiltinRelu6:
    case kTfLiteBuiltinReluN1To1:
      if (in->size == 1 && fits(context, op))
        op->kind = builtin == kTfLiteBuiltinRelu ? RELU : builtin == kTfLiteBuiltinRelu6 ? RELU6 : RELU_N1_TO_1;
      return;
    case kTfLiteBuiltinTile:
      if (x->type == kTfLiteFloat32 && !is_constant(context, in->data[0]) && tiles_channels(context, in, channels)) {
        op->kind = TILE_CHANNELS;
        op->rank = x->dims->size;
        op->times = context->tensors[in->data[1]].data.i32[op->rank - 1];
      }
      return;
    case kTfLiteBuiltinConcatenation: {
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
      if (sum != channels) return;
      if (!copies)
        for (int i = 1; i < in->size; i++)
          if (in->data[i] == in->data[0]) return;
      op->kind = copies ? TILE_CHANNELS : CONCATENATE;
      op->times = in->size;
      op->rank = concatenation->axis < 0 ? 0 : rank;
      return;
    }
    case kTfLiteBuiltinAveragePool2d:
    case kTfLiteBuiltinMaxPool2d: {
      const int longest = builtin == kTfLiteBuiltinMaxPool2d ? MAX_POOLED : 2;
      if (!pool || in->size != 1 || pool->activation != kTfLiteActNone || x->type != kTfLiteFloat32 ||
          x->dims->size != 4 || y->dims->size != 4 || is_constant(context, in->data[0]) || pool->filter_height < 1 ||
          pool->filter_height > longest || pool->filter_width < 1 || pool->filter_width > longest ||
          pool->stride_height < 1 || pool->stride_width < 1 || last_dimension(x) != channels)
        return;
      op->window = (struct window){pool->filter_height, pool->filter_width, pool->stride_height,
                                   pool->stride_width,  1,                  1,
                                   pool->padding == kTfLitePaddingSame};
      op->kind = builtin == kTfLiteBuiltinMaxPool2d ? MAX_POOL : AVERAGE_POOL;
      return;
    }
    default:
      return;
  }
}

TfLiteStatus read_operator(TfLiteContext *context, int index, struct operator * op) {
  static const enum kind customs[] = {QUANTIZE, DEQUANTIZE, BCONV, BMAXPOOL};
  TfLiteNode *node;
  TfLiteRegistration *registration;
  *op = (struct operator){.node = index};
  if (context->GetNodeAndRegistration(context, index, &node, &registration) != kTfLiteOk) return kTfLiteError;
  op->inputs = node->inputs;
  op->outputs = node->outputs;
  if (registration->builtin_code != kTfLiteBuiltinCustom) {
    read_builtin(context, node, registration->builtin_code, op);
    return kTfLiteOk;
  }
  for (size_t i = 0; registration->custom_name && i < sizeof customs / sizeof *customs; i++)
    if (strcmp(registration->custom_name, kind_name(customs[i])) == 0) {
      op->kind = customs[i];
      return read_custom(context, node, op);
    }
  return kTfLiteOk;
}
