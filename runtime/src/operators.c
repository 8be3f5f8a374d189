/* One table of all operators, and the checks that LCE's own are well formed. */
#include "operators.h"

#include <string.h>

#include "builtins.h"
#include "flexbuffer.h"
#include "tensors.h"

/* The values of a tensor that is a constant, or that FILL computes from one: LCE's converter writes FILL for filters
 * whose weights are all equal. Its node comes before its reader's. */
static bool known_values(TfLiteContext *context, int reader, int tensor, struct values *values) {
  const TfLiteTensor *t = &context->tensors[tensor];
  *values = (struct values){t->data.data, 1};
  if (is_constant(context, tensor)) return t->bytes >= (uint64_t)elements(t) * 4;
  for (int i = reader - 1; i >= 0; i--) {
    TfLiteNode *tf_node;
    TfLiteRegistration *registration;
    if (context->GetNodeAndRegistration(context, i, &tf_node, &registration) != kTfLiteOk) return false;
    if (registration->builtin_code != kTfLiteBuiltinFill || !tf_node->inputs || tf_node->inputs->size != 2 ||
        !tf_node->outputs || tf_node->outputs->size != 1 || tf_node->outputs->data[0] != tensor)
      continue;
    const int value = tf_node->inputs->data[1];
    if (!valid_tensor(context, value) || !is_constant(context, value) || context->tensors[value].type != t->type ||
        context->tensors[value].bytes < 4)
      return false;
    *values = (struct values){context->tensors[value].data.data, 0};
    return true;
  }
  return false;
}

/* Reports an LCE operator that cannot run: the operator, its tensor and the reason. */
static TfLiteStatus malformed(TfLiteContext *context, const struct node *node, int tensor, const char *expected,
                              long found) {
  context->ReportError(context, "larq-rep: operator %d (%s), tensor %d '%.60s': expected %s, found %ld.", node->index,
                       node_types[node->kind].name, tensor, tensor_name(context, tensor), expected, found);
  return kTfLiteError;
}

static TfLiteStatus read_option(TfLiteContext *context, const TfLiteNode *tf_node, const struct node *node,
                                const char *key, int low, int high, int *value) {
  int64_t found;
  if (tf_node->custom_initial_data_size <= 0 ||
      !flexbuffer_int(tf_node->custom_initial_data, (size_t)tf_node->custom_initial_data_size, key, &found)) {
    context->ReportError(context, "larq-rep: operator %d (%s): its options lack '%s' or are damaged.", node->index,
                         node_types[node->kind].name, key);
    return kTfLiteError;
  }
  if (found < low || found > high) {
    context->ReportError(context, "larq-rep: operator %d (%s): option '%s' should be %d to %d, found %lld.",
                         node->index, node_types[node->kind].name, key, low, high, (long long)found);
    return kTfLiteError;
  }
  *value = (int)found;
  return kTfLiteOk;
}

#define OPTION(key, low, high, target) \
  if (read_option(context, tf_node, node, key, low, high, target) != kTfLiteOk) return kTfLiteError
#define PACKED "packed signs, which are type 2 (int32)"
#define EXPECT(condition, tensor, expected, found) \
  if (!(condition)) return malformed(context, node, tensor, expected, (long)(found))

static TfLiteStatus check_operands(TfLiteContext *context, const struct node *node, int inputs) {
  EXPECT(node->inputs && node->outputs && node->inputs->size == inputs && node->outputs->size == 1, -1,
         inputs == 5 ? "5 inputs and one output" : "one input and one output", node->inputs ? node->inputs->size : 0);
  const int input = node->inputs->data[0], output = node->outputs->data[0];
  EXPECT(valid_tensor(context, input), input, "an input", -1);
  EXPECT(valid_tensor(context, output), output, "an output", -1);
  if (inputs > 1) return kTfLiteOk;
  const TfLiteTensor *x = &context->tensors[input], *y = &context->tensors[output];
  EXPECT(x->dims->size >= 1, input, "rank 1 or more", 0);
  EXPECT(x->dims->size == y->dims->size, output, "the rank of the input", y->dims->size);
  return kTfLiteOk;
}

/* LceQuantize and LceDequantize: `wide` numbers on one side, packed signs on the other. */
static TfLiteStatus read_signs(TfLiteContext *context, const TfLiteNode *tf_node, struct node *node) {
  (void)tf_node;
  if (check_operands(context, node, 1) != kTfLiteOk) return kTfLiteError;
  const int input = node->inputs->data[0], output = node->outputs->data[0];
  const bool packs = node->kind == NODE_QUANTIZE;
  const int w = packs ? input : output, p = packs ? output : input;
  const TfLiteTensor *wide = &context->tensors[w], *packed = &context->tensors[p];
  EXPECT(wide->type == kTfLiteFloat32 || wide->type == kTfLiteInt8 || wide->type == kTfLiteBool, w,
         "type 1 (float32), 9 (int8) or 6 (bool)", wide->type);
  EXPECT(packed->type == kTfLiteInt32, p, PACKED, packed->type);
  EXPECT(last_dimension(wide) >= 1 && last_dimension(wide) <= MAX_CHANNELS, w, "a number of channels",
         last_dimension(wide));
  EXPECT(last_dimension(packed) == (last_dimension(wide) + 31) / 32, p, "ceil(channels / 32) words",
         last_dimension(packed));
  /* The sign of an int8 number needs its zero point only, which is 0 if a file gives none. */
  if (wide->type == kTfLiteInt8 && !packs) EXPECT(wide->params.scale > 0, w, "a positive scale", 0);
  return kTfLiteOk;
}

static TfLiteStatus read_bconv(TfLiteContext *context, const TfLiteNode *tf_node, struct node *node) {
  if (check_operands(context, node, 5) != kTfLiteOk) return kTfLiteError;
  const TfLiteIntArray *in = node->inputs;
  const int output = node->outputs->data[0];
  int padding, activation;
  OPTION("channels_in", 1, MAX_CHANNELS, &node->channels_in);
  OPTION("dilation_height_factor", 1, 1 << 15, &node->window.dilation_height);
  OPTION("dilation_width_factor", 1, 1 << 15, &node->window.dilation_width);
  OPTION("fused_activation_function", 0, 3, &activation);
  OPTION("pad_values", 0, 1, &node->pad_values);
  OPTION("padding", 0, 1, &padding);
  OPTION("stride_height", 1, 1 << 15, &node->window.stride_height);
  OPTION("stride_width", 1, 1 << 15, &node->window.stride_width);
  node->activation = (TfLiteFusedActivation)activation;
  node->window.same = padding == 0;

  const TfLiteTensor *x = &context->tensors[in->data[0]], *y = &context->tensors[output];
  EXPECT(x->type == kTfLiteInt32, in->data[0], PACKED, x->type);
  EXPECT(x->dims->size == 4, in->data[0], "rank 4", x->dims->size);
  const int words = (node->channels_in + 31) / 32;
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
  EXPECT(known_values(context, node->index, in->data[1], &node->values[1]), in->data[1],
         "a constant filter of as many bytes as its shape says", filter->bytes);
  EXPECT(words % shape[3] == 0, in->data[1], "filter words that divide those of the input", shape[3]);
  const int groups = words / shape[3];
  EXPECT(groups == 1 || node->channels_in % (32 * groups) == 0, in->data[1], "groups of a multiple of 32 channels",
         node->channels_in);
  EXPECT(shape[0] % groups == 0, in->data[1], "output channels that the groups divide", shape[0]);
  node->window.height = shape[1];
  node->window.width = shape[2];
  /* A threshold includes the activation: LCE's converter has folded it in. */
  const bool bits = y->type == kTfLiteInt32;
  if (bits) node->activation = kTfLiteActNone;
  EXPECT(!node->window.same || node->pad_values == 1 || shape[1] * shape[2] == 1 || node->activation == kTfLiteActNone,
         output, "no fused activation with zero padding", node->activation);

  EXPECT(bits || y->type == kTfLiteFloat32 || y->type == kTfLiteInt8, output,
         "type 1 (float32), 9 (int8) or 2 (packed signs)", y->type);
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
    EXPECT(known_values(context, node->index, t, &node->values[i]), t, "a constant of 4 bytes a channel", c->bytes);
  }
  if (y->type == kTfLiteInt8) EXPECT(y->params.scale > 0, output, "a positive scale", 0);
  return kTfLiteOk;
}

static TfLiteStatus read_bmaxpool(TfLiteContext *context, const TfLiteNode *tf_node, struct node *node) {
  if (check_operands(context, node, 1) != kTfLiteOk) return kTfLiteError;
  const int input = node->inputs->data[0], output = node->outputs->data[0];
  const TfLiteTensor *x = &context->tensors[input], *y = &context->tensors[output];
  int padding;
  OPTION("filter_height", 1, 1 << 15, &node->window.height);
  OPTION("filter_width", 1, 1 << 15, &node->window.width);
  OPTION("padding", 0, 1, &padding);
  OPTION("stride_height", 1, 1 << 15, &node->window.stride_height);
  OPTION("stride_width", 1, 1 << 15, &node->window.stride_width);
  node->window.same = padding == 0;
  node->window.dilation_height = node->window.dilation_width = 1;
  EXPECT(x->type == kTfLiteInt32, input, PACKED, x->type);
  EXPECT(x->dims->size == 4, input, "rank 4", x->dims->size);
  EXPECT(y->type == kTfLiteInt32, output, PACKED, y->type);
  EXPECT(last_dimension(y) == last_dimension(x), output, "the words of the input", last_dimension(y));
  EXPECT(last_dimension(x) >= 1 && last_dimension(x) <= MAX_CHANNELS, input, "words", last_dimension(x));
  return kTfLiteOk;
}

const struct node_type node_types[NODE_KINDS] = {
    [NODE_NOT_OURS] = {.name = "?"},
    [NODE_QUANTIZE] = {.name = "LceQuantize", .read = read_signs},
    [NODE_DEQUANTIZE] = {.name = "LceDequantize", .read = read_signs, .step = STEP_DEQUANTIZE},
    [NODE_BCONV] = {.name = "LceBconv2d", .read = read_bconv, .step = STEP_CONVOLUTION},
    [NODE_BMAXPOOL] = {.name = "LceBMaxPool2d", .read = read_bmaxpool, .step = STEP_BINARY_MAX_POOL},
    [NODE_ADD] = {.name = "ADD", .elementwise = true, .arithmetic = true},
    [NODE_SUBTRACT] = {.name = "SUB", .elementwise = true, .arithmetic = true},
    [NODE_MULTIPLY] = {.name = "MUL", .elementwise = true, .arithmetic = true},
    [NODE_MINIMUM] = {.name = "MINIMUM", .elementwise = true, .arithmetic = true},
    [NODE_MAXIMUM] = {.name = "MAXIMUM", .elementwise = true, .arithmetic = true},
    [NODE_LESS] = {.name = "LESS", .elementwise = true, .arithmetic = true},
    [NODE_NEGATE] = {.name = "NEG", .elementwise = true},
    [NODE_PRELU] = {.name = "PRELU", .elementwise = true},
    [NODE_RELU] = {.name = "RELU", .elementwise = true},
    [NODE_RELU6] = {.name = "RELU6", .elementwise = true},
    [NODE_RELU_N1_TO_1] = {.name = "RELU_N1_TO_1", .elementwise = true},
    [NODE_REPEAT] = {.name = "TILE", .step = STEP_REPEAT},
    [NODE_CONCATENATE] = {.name = "CONCATENATION"},
    [NODE_TO_INT8] = {.name = "QUANTIZE"},
    [NODE_FROM_INT8] = {.name = "DEQUANTIZE"},
    [NODE_AVERAGE_POOL] = {.name = "AVERAGE_POOL_2D", .pools = true, .step = STEP_POOL},
    [NODE_MAX_POOL] = {.name = "MAX_POOL_2D", .pools = true, .step = STEP_POOL},
};

TfLiteStatus read_node(TfLiteContext *context, int index, struct node *node) {
  TfLiteNode *tf_node;
  TfLiteRegistration *registration;
  *node = (struct node){.index = index};
  if (context->GetNodeAndRegistration(context, index, &tf_node, &registration) != kTfLiteOk) return kTfLiteError;
  node->inputs = tf_node->inputs;
  node->outputs = tf_node->outputs;
  if (registration->builtin_code != kTfLiteBuiltinCustom) {
    read_builtin(context, tf_node, registration->builtin_code, node);
    return kTfLiteOk;
  }
  for (int kind = 0; registration->custom_name && kind < NODE_KINDS; kind++)
    if (node_types[kind].read && strcmp(registration->custom_name, node_types[kind].name) == 0) {
      node->kind = (enum node_kind)kind;
      return node_types[kind].read(context, tf_node, node);
    }
  return kTfLiteOk;
}
