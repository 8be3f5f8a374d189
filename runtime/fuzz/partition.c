/* libFuzzer: graphs, shapes, types and options of any kind, as a damaged file might bring them, claimed, planned,
 * prepared and run, and once more after a resize. Whatever comes in, the delegate may only refuse it. As few of them
 * are sound, half of the graphs are a convolution with a chain behind it, such as a file may hold.
 *   make fuzz
 */
#include <stdlib.h>
#include <string.h>

#include "../src/claim.h"
#include "../src/partition.h"
#include "../src/plan.h"
#include "../tests/host.h"

enum { TENSORS = 14, NODES = 8, MOST = 1 << 18 };

struct input {
  const uint8_t *data;
  size_t size;
};

static int next(struct input *in) {
  if (!in->size) return 0;
  in->size--;
  return *in->data++;
}

static int pick(struct input *in, const int *values, int count) { return values[next(in) % count]; }

struct host {
  struct host_graph graph;
  TfLiteContext context;
  TfLiteTensor tensors[TENSORS];
  TfLiteNode nodes[NODES];
  TfLiteRegistration registrations[NODES];
  uint8_t parameters[NODES][64];
  int count;
};

static TfLiteStatus resize(TfLiteContext *context, TfLiteTensor *tensor, TfLiteIntArray *dims) {
  (void)context;
  free(tensor->dims);
  tensor->dims = dims;
  return kTfLiteOk;
}

static void report(TfLiteContext *context, const char *message, ...) {
  (void)context;
  (void)message;
}

static size_t bytes_of(const TfLiteTensor *t) {
  size_t bytes = t->type == kTfLiteInt8 || t->type == kTfLiteBool ? 1 : t->type == kTfLiteInt64 ? 8 : 4;
  for (int i = 0; i < t->dims->size; i++) {
    if (t->dims->data[i] < 0 || bytes > MOST) return MOST + 1;
    bytes *= (size_t)t->dims->data[i];
  }
  return bytes;
}

static void make_tensor(struct input *in, TfLiteTensor *t) {
  static const int types[] = {kTfLiteFloat32, kTfLiteFloat32, kTfLiteFloat32, kTfLiteInt32,
                              kTfLiteInt32,   kTfLiteInt8,    kTfLiteBool,    4};
  static const int ranks[] = {4, 4, 4, 4, 4, 1, 1, 2, 3, 0, 5, 8};
  static const int sizes[] = {1, 1, 1, 2, 3, 4, 5, 8, 16, 32, 33, 64, 64, 96, 0, -1, 1 << 20, INT32_MAX};
  t->type = (TfLiteType)pick(in, types, 8);
  t->dims = int_array(pick(in, ranks, 12), NULL);
  for (int i = 0; i < t->dims->size; i++) t->dims->data[i] = pick(in, sizes, next(in) % 8 ? 14 : 18);
  t->name = "tensor";
  t->params = (TfLiteQuantizationParams){(float)next(in) / 64, next(in) - 128};
  const size_t bytes = bytes_of(t);
  t->allocation_type = next(in) % 2 ? kTfLiteMmapRo : (TfLiteAllocationType)2;
  t->bytes = bytes > MOST ? 0 : bytes;
  if (t->allocation_type == kTfLiteMmapRo) {
    if (next(in) % 16 == 0) t->bytes /= 2; /* a constant that lacks data */
    uint8_t *data = t->data.data = malloc(t->bytes + (t->bytes == 0));
    for (size_t i = 0; i < t->bytes; i++) data[i] = (uint8_t)(i * 37 + i / 5);
    /* Multiples of TILE are small numbers. */
    if (t->type == kTfLiteInt32 && t->dims->size == 1 && t->bytes == 16) {
      for (int i = 0; i < 4; i++) t->data.i32[i] = i < 3 ? 1 : next(in) % 5;
    }
  }
}

static void set_tensor(struct host *host, int index, TfLiteType type, int rank, const int *dims, bool constant) {
  TfLiteTensor *t = &host->tensors[index];
  *t = (TfLiteTensor){.type = type,
                      .dims = int_array(rank, NULL),
                      .name = "tensor",
                      .allocation_type = constant ? kTfLiteMmapRo : (TfLiteAllocationType)2};
  memcpy(t->dims->data, dims, (size_t)rank * sizeof(int));
  t->bytes = bytes_of(t);
  if (!constant) return;
  uint8_t *data = t->data.data = malloc(t->bytes);
  for (size_t i = 0; i < t->bytes; i++) data[i] = (uint8_t)(i * 37 + i / 5);
}

static void set_node(struct host *host, int index, int builtin, const char *custom, int inputs, const int *in,
                     int out) {
  host->registrations[index] = (TfLiteRegistration){.builtin_code = builtin, .custom_name = custom};
  host->nodes[index].inputs = int_array(inputs, NULL);
  memcpy(host->nodes[index].inputs->data, in, (size_t)inputs * sizeof(int));
  host->nodes[index].outputs = int_array(1, NULL);
  host->nodes[index].outputs->data[0] = out;
}

static void put_options(TfLiteNode *node, int index, const int *values) {
  static const char *const keys[] = {"channels_in",
                                     "dilation_height_factor",
                                     "dilation_width_factor",
                                     "filter_height",
                                     "filter_width",
                                     "fused_activation_function",
                                     "pad_values",
                                     "padding",
                                     "stride_height",
                                     "stride_width"};
  static uint8_t maps[NODES][320];
  const int size = flexbuffer(maps[index], 10, keys, values);
  node->custom_initial_data = maps[index];
  node->custom_initial_data_size = size;
}

static void make_node(struct input *in, struct host *host, int index) {
  static const int builtins[] = {kTfLiteBuiltinAdd,
                                 kTfLiteBuiltinAdd,
                                 kTfLiteBuiltinMul,
                                 kTfLiteBuiltinSub,
                                 kTfLiteBuiltinPrelu,
                                 kTfLiteBuiltinTile,
                                 kTfLiteBuiltinConcatenation,
                                 kTfLiteBuiltinAveragePool2d,
                                 kTfLiteBuiltinRelu,
                                 kTfLiteBuiltinRelu6,
                                 3,
                                 kTfLiteBuiltinMaxPool2d,
                                 kTfLiteBuiltinReluN1To1,
                                 kTfLiteBuiltinFill,
                                 kTfLiteBuiltinQuantize,
                                 kTfLiteBuiltinDequantize,
                                 kTfLiteBuiltinMaximum,
                                 kTfLiteBuiltinMinimum,
                                 kTfLiteBuiltinLess,
                                 kTfLiteBuiltinNeg};
  static const char *const customs[] = {"LceQuantize",   "LceBconv2d",    "LceQuantize", "LceBconv2d",
                                        "LceDequantize", "LceBMaxPool2d", "Other"};
  TfLiteNode *node = &host->nodes[index];
  const bool custom = next(in) % 2;
  const char *name = custom ? customs[next(in) % 7] : NULL;
  host->registrations[index] =
      (TfLiteRegistration){.builtin_code = custom ? kTfLiteBuiltinCustom : pick(in, builtins, 20), .custom_name = name};
  const int inputs = custom && strcmp(name, "LceBconv2d") == 0 ? 5 : next(in) % 5;
  node->inputs = int_array(inputs, NULL);
  for (int i = 0; i < inputs; i++) node->inputs->data[i] = next(in) % (TENSORS + 1) - 1;
  node->outputs = int_array(next(in) % 16 ? 1 : next(in) % 3, NULL);
  for (int i = 0; i < node->outputs->size; i++) node->outputs->data[i] = next(in) % TENSORS;
  uint8_t *p = host->parameters[index];
  if (!custom) {
    const int params[] = {next(in) % 4, next(in) % 4, 1 + next(in) % 2, 1 + next(in) % 2, 1 + next(in) % 2, 0};
    memcpy(p, params, sizeof params);
    if (host->registrations[index].builtin_code == kTfLiteBuiltinConcatenation) memset(p + 4, 0, 4);
    if (host->registrations[index].builtin_code == kTfLiteBuiltinAveragePool2d)
      ((int *)(void *)p)[0] = 1 + params[0] % 2;
    node->builtin_data = next(in) % 16 ? p : NULL;
    return;
  }
  if (next(in) % 4 == 0) { /* bytes of any kind */
    static uint8_t raw[NODES][64];
    const int size = next(in) % 64;
    for (int i = 0; i < size; i++) raw[index][i] = (uint8_t)next(in);
    node->custom_initial_data = raw[index];
    node->custom_initial_data_size = size;
    return;
  }
  static const int channels[] = {1, 16, 32, 33, 64, 96, 100, 0};
  static const int far[] = {1, 2, 3, 16000, 32767, 5, 64, 4096};
  const int values[] = {pick(in, channels, 8),
                        next(in) % 4 ? 1 + next(in) % 3 : pick(in, far, 8),
                        next(in) % 4 ? 1 + next(in) % 3 : pick(in, far, 8),
                        next(in) % 4 ? 1 + next(in) % 3 : pick(in, far, 8),
                        next(in) % 4 ? 1 + next(in) % 3 : pick(in, far, 8),
                        next(in) % 8 ? 0 : next(in) % 4,
                        next(in) % 2,
                        next(in) % 2,
                        next(in) % 4 ? 1 + next(in) % 3 : pick(in, far, 8),
                        next(in) % 4 ? 1 + next(in) % 3 : pick(in, far, 8)};
  put_options(node, index, values);
}

/* x -> LceQuantize -> LceBconv2d -> TILE, ADD, PRELU and RELU in any order. */
static void make_chain(struct input *in, struct host *host) {
  enum { X, PACKED, FILTER, MULTIPLIER, BIAS, SUM, LAST = SUM + NODES - 2, NUMBER, TIMES };
  static const int far[] = {1, 2, 3, 16000, 32767, 5, 64, 4096};
  static const int outputs[] = {8, 16, 20, 32, 33, 64};
  static const TfLiteArithmeticParams none = {kTfLiteActNone};
  const int h = 1 + next(in) % 8, w = 1 + next(in) % 8, kernel = 1 + next(in) % 4, activation = next(in) % 4;
  int filters = pick(in, outputs, 6);
  const int values[] = {32, pick(in, far, 8), pick(in, far, 8), 1, 1, activation, activation ? 1 : next(in) % 2,
                        0,  pick(in, far, 8), pick(in, far, 8)};
  const int oh = (h - 1) / values[8] + 1, ow = (w - 1) / values[9] + 1;
  set_tensor(host, X, kTfLiteFloat32, 4, (int[]){1, h, w, 32}, false);
  set_tensor(host, PACKED, kTfLiteInt32, 4, (int[]){1, h, w, 1}, false);
  set_tensor(host, FILTER, kTfLiteInt32, 4, (int[]){filters, kernel, kernel, 1}, true);
  set_tensor(host, MULTIPLIER, kTfLiteFloat32, 1, &filters, true);
  set_tensor(host, BIAS, kTfLiteFloat32, 1, &filters, true);
  set_tensor(host, SUM, kTfLiteFloat32, 4, (int[]){1, oh, ow, filters}, false);
  set_tensor(host, NUMBER, kTfLiteFloat32, 1, (int[]){1}, true);
  set_tensor(host, TIMES, kTfLiteInt32, 1, (int[]){4}, true);
  memcpy(host->tensors[TIMES].data.i32, (int[]){1, 1, 1, 2}, 4 * sizeof(int));
  set_node(host, 0, kTfLiteBuiltinCustom, "LceQuantize", 1, (int[]){X}, PACKED);
  set_node(host, 1, kTfLiteBuiltinCustom, "LceBconv2d", 5, (int[]){PACKED, FILTER, MULTIPLIER, BIAS, -1}, SUM);
  put_options(&host->nodes[1], 1, values);
  for (int i = 2; i < NODES; i++) {
    const int kind = next(in) % 4, from = SUM + i - 2;
    if (kind == 0) filters *= 2;
    set_tensor(host, from + 1, kTfLiteFloat32, 4, (int[]){1, oh, ow, filters}, false);
    if (kind == 0) set_node(host, i, kTfLiteBuiltinTile, NULL, 2, (int[]){from, TIMES}, from + 1);
    if (kind == 1) set_node(host, i, kTfLiteBuiltinAdd, NULL, 2, (int[]){from, NUMBER}, from + 1);
    if (kind == 2) set_node(host, i, kTfLiteBuiltinPrelu, NULL, 2, (int[]){from, NUMBER}, from + 1);
    if (kind == 3) set_node(host, i, kTfLiteBuiltinRelu, NULL, 1, (int[]){from}, from + 1);
    host->nodes[i].builtin_data = (void *)(uintptr_t)&none;
  }
}

static void run(struct input *in, struct host *host, const TfLiteIntArray *nodes) {
  bool produced[TENSORS] = {false};
  TfLiteDelegateParams params = {.nodes_to_replace = (TfLiteIntArray *)(uintptr_t)nodes,
                                 .input_tensors = int_array(TENSORS, NULL),
                                 .output_tensors = int_array(TENSORS, NULL)};
  params.input_tensors->size = params.output_tensors->size = 0;
  for (int i = 0; i < nodes->size; i++) {
    const TfLiteNode *node = &host->nodes[nodes->data[i]];
    const int output = node->outputs->data[0];
    /* The runtime hands over graphs in which nobody writes a tensor twice, nor a constant. */
    if (produced[output] || host->tensors[output].allocation_type == kTfLiteMmapRo) goto end;
    produced[output] = true;
    if (output % 3 == 0) params.output_tensors->data[params.output_tensors->size++] = output;
  }
  const struct kernels *const *k = all_kernels;
  struct shared shared = {.options = {.kernels = *k, .fuse = true}};
  while (!(*k)->supported()) shared.options.kernels = *++k;
  struct partition partition = {.shared = &shared, .options = &shared.options};
  partition.plan = make_plan(&host->context, &params);
  for (int round = 0; partition.plan && round < 2; round++) {
    for (int i = 0; round && i < TENSORS; i++) {
      TfLiteTensor *t = &host->tensors[i];
      const int axis = t->dims->size ? next(in) % t->dims->size : 0;
      if (!produced[i] && t->allocation_type != kTfLiteMmapRo && t->dims->size) t->dims->data[axis] = next(in) % 10;
    }
    if (prepare_partition(&host->context, &partition) != kTfLiteOk) continue;
    bool small = true;
    for (int i = 0; i < TENSORS; i++) {
      TfLiteTensor *t = &host->tensors[i];
      const size_t bytes = bytes_of(t);
      if (t->allocation_type == kTfLiteMmapRo) continue;
      small = small && bytes <= MOST;
      free(t->data.data);
      t->bytes = bytes > MOST ? 0 : bytes;
      t->data.data = calloc(1, t->bytes + (t->bytes == 0));
    }
    if (small && partition.memory_bytes < (size_t)MOST * 16) invoke_partition(&host->context, &partition);
  }
  free_plan(partition.plan);
  free(partition.memory);
  free(partition.scratch);
end:
  free(params.input_tensors);
  free(params.output_tensors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input in = {data, size};
  struct host host;
  memset(&host, 0, sizeof host);
  host.graph = (struct host_graph){.nodes = host.nodes, .registrations = host.registrations};
  host.context = (TfLiteContext){.tensors_size = TENSORS,
                                 .tensors = host.tensors,
                                 .impl_ = &host,
                                 .ResizeTensor = resize,
                                 .ReportError = report,
                                 .GetExecutionPlan = get_plan,
                                 .GetNodeAndRegistration = get_node,
                                 .recommended_num_threads = 1};
  const int kind = next(&in);
  host.count = kind < 128 ? 1 + kind % NODES : NODES;
  host.graph.plan = int_array(host.count, NULL);
  for (int i = 0; i < host.count; i++) host.graph.plan->data[i] = i;
  for (int i = 0; kind < 128 && i < host.count; i++) make_node(&in, &host, i);
  for (int i = 0; kind < 128 && i < TENSORS; i++) make_tensor(&in, &host.tensors[i]);
  if (kind >= 128) make_chain(&in, &host);
  const struct options options = {.kernels = choose_kernels(NULL), .fuse = true};
  TfLiteIntArray *nodes;
  if (claim(&host.context, &options, &nodes) == kTfLiteOk && nodes->size) run(&in, &host, nodes);
  free(nodes);
  for (int i = 0; i < host.count; i++) {
    free(host.nodes[i].inputs);
    free(host.nodes[i].outputs);
  }
  for (int i = 0; i < TENSORS; i++) {
    free(host.tensors[i].dims);
    free(host.tensors[i].data.data);
  }
  free(host.graph.plan);
  return 0;
}
