/* Inferences of the delegate's partitions of a .tflite file, without a runtime around them: for emulators, which would
 * spend most of their time in one.
 *     inference FILE [COUNT]
 * Prints the MACs of the file's binary convolutions. The options of the delegate come from its environment variables.
 * Operators that the delegate does not take are not run: what they compute is random here. The file is trusted.
 * Nothing is freed: the process ends.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../src/flexbuffer.h"
#include "../tests/host.h"

TfLiteDelegate *tflite_plugin_create_delegate(const char *const *keys, const char *const *values, size_t count,
                                              void (*report_error)(const char *));

struct part {
  TfLiteRegistration registration;
  TfLiteNode node;
};

struct host {
  struct host_graph graph; /* the first member, for host.h */
  TfLiteContext context;
  int *writer;  /* of each tensor: the node that computes it, or -1 */
  bool *result; /* of each tensor: whether it is an output of the file */
  TfLiteDelegateParams *cut;
  struct part *parts;
  int part_count;
};

static void fail(const char *what) {
  fprintf(stderr, "inference: %s.\n", what);
  exit(1);
}

/* Zeroed. */
static void *memory(size_t count, size_t size) {
  void *p = calloc(count ? count : 1, size);
  if (!p) fail("no memory");
  return p;
}

/* ---- The file: a flatbuffer, by the numbers of the fields in TFLite's schema ---- */

static uint32_t read32(const uint8_t *p) {
  uint32_t value;
  memcpy(&value, p, sizeof value);
  return value;
}

/* The field of a table; NULL if it is left out. */
static const uint8_t *field(const uint8_t *table, int number) {
  const uint8_t *vtable = table - (int32_t)read32(table);
  uint16_t size, offset = 0;
  memcpy(&size, vtable, sizeof size);
  if (4 + 2 * number < size) memcpy(&offset, vtable + 4 + 2 * number, sizeof offset);
  return offset ? table + offset : NULL;
}

static const uint8_t *target(const uint8_t *p) { return p + read32(p); }

static int int_field(const uint8_t *table, int number) {
  const uint8_t *p = field(table, number);
  return p ? (int)read32(p) : 0;
}

static int byte_field(const uint8_t *table, int number) {
  const uint8_t *p = field(table, number);
  return p ? (int8_t)*p : 0;
}

/* The elements of a vector, and how many there are. */
static const uint8_t *vector(const uint8_t *table, int number, int *count) {
  const uint8_t *p = field(table, number);
  *count = p ? (int)read32(target(p)) : 0;
  return p ? target(p) + 4 : NULL;
}

static const uint8_t *element(const uint8_t *vector_of_tables, int i) { return target(vector_of_tables + 4 * i); }

static TfLiteIntArray *ints(const uint8_t *table, int number) {
  int count;
  const uint8_t *values = vector(table, number, &count);
  return int_array(count, (const int *)(const void *)values);
}

static uint8_t *read_file(const char *name) {
  FILE *file = fopen(name, "rb");
  if (!file || fseek(file, 0, SEEK_END)) fail("cannot read the file");
  const long size = ftell(file);
  rewind(file);
  uint8_t *content = memory((size_t)size, 1);
  if (fread(content, 1, (size_t)size, file) != (size_t)size) fail("cannot read the file");
  fclose(file);
  if (size < 8 || memcmp(content + 4, "TFL3", 4) != 0) fail("not a .tflite file");
  return content;
}

/* ---- The graph, as TFLite would hand it to the delegate ---- */

static void read_tensor(const uint8_t *table, const uint8_t *buffers, TfLiteTensor *tensor) {
  int size = 0;
  tensor->dims = ints(table, 0);
  tensor->type = byte_field(table, 1) == 0 ? kTfLiteFloat32 : (TfLiteType)byte_field(table, 1);
  const uint8_t *data = vector(element(buffers, int_field(table, 2)), 0, &size);
  const uint8_t *name = field(table, 3), *quantization = field(table, 4);
  tensor->name = name ? (const char *)target(name) + 4 : "";
  if (quantization) {
    int count;
    const uint8_t *scale = vector(target(quantization), 2, &count);
    if (count == 1) memcpy(&tensor->params.scale, scale, sizeof tensor->params.scale);
    const uint8_t *zero = vector(target(quantization), 3, &count);
    if (count == 1) tensor->params.zero_point = (int32_t)read32(zero);
  }
  tensor->allocation_type = size ? kTfLiteMmapRo : kTfLiteDynamic;
  tensor->bytes = (size_t)size;
  if (!size) return;
  tensor->data.data = memory((size_t)size, 1); /* aligned, as TFLite's are */
  memcpy(tensor->data.data, data, (size_t)size);
}

static void *read_options(int builtin, const uint8_t *options) {
  if (!options) return NULL;
  if (builtin == kTfLiteBuiltinConcatenation) {
    TfLiteConcatenationParams *params = memory(1, sizeof *params);
    *params = (TfLiteConcatenationParams){int_field(options, 0), (TfLiteFusedActivation)byte_field(options, 1)};
    return params;
  }
  if (builtin == kTfLiteBuiltinAveragePool2d || builtin == kTfLiteBuiltinMaxPool2d) {
    TfLitePoolParams *params = memory(1, sizeof *params);
    *params = (TfLitePoolParams){.padding = byte_field(options, 0) ? kTfLitePaddingValid : kTfLitePaddingSame,
                                 .stride_width = int_field(options, 1),
                                 .stride_height = int_field(options, 2),
                                 .filter_width = int_field(options, 3),
                                 .filter_height = int_field(options, 4),
                                 .activation = (TfLiteFusedActivation)byte_field(options, 5)};
    return params;
  }
  if (builtin != kTfLiteBuiltinAdd && builtin != kTfLiteBuiltinSub && builtin != kTfLiteBuiltinMul) return NULL;
  TfLiteArithmeticParams *params = memory(1, sizeof *params);
  params->activation = (TfLiteFusedActivation)byte_field(options, 0);
  return params;
}

static void read_node(const uint8_t *table, const uint8_t *codes, TfLiteNode *node, TfLiteRegistration *registration) {
  const uint8_t *code = element(codes, int_field(table, 0)), *custom = field(code, 1), *options = field(table, 4);
  /* Old files hold the code in a byte, newer ones in an int beside it. */
  registration->builtin_code = byte_field(code, 0) > int_field(code, 3) ? byte_field(code, 0) : int_field(code, 3);
  registration->custom_name = custom ? (const char *)target(custom) + 4 : NULL;
  node->inputs = ints(table, 1);
  node->outputs = ints(table, 2);
  node->builtin_data = read_options(registration->builtin_code, options ? target(options) : NULL);
  node->custom_initial_data = vector(table, 5, &node->custom_initial_data_size);
}

static double macs_of(const TfLiteTensor *tensors, const TfLiteNode *node) {
  const TfLiteIntArray *filter = tensors[node->inputs->data[1]].dims, *y = tensors[node->outputs->data[0]].dims;
  int64_t channels;
  if (!flexbuffer_int(node->custom_initial_data, (size_t)node->custom_initial_data_size, "channels_in", &channels))
    fail("a binary convolution does not say how many channels it reads");
  const double groups = ceil((double)channels / 32) / filter->data[3];
  return (double)y->data[0] * y->data[1] * y->data[2] * y->data[3] * filter->data[1] * filter->data[2] *
         (double)channels / groups;
}

/* ---- What the delegate calls ---- */

static void report(TfLiteContext *context, const char *format, ...) {
  (void)context;
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
}

static TfLiteStatus resize(TfLiteContext *context, TfLiteTensor *tensor, TfLiteIntArray *dims) {
  (void)context;
  tensor->dims = dims;
  return kTfLiteOk;
}

/* Whether a tensor is known when the parts up to now have run. */
static bool is_ready(const struct host *host, const int *part, int tensor) {
  return tensor < 0 || host->writer[tensor] < 0 || part[host->writer[tensor]] >= 0;
}

/* Cuts the graph into parts as TFLite does: each part takes all nodes that can run now and are of one kind, the
 * delegate's or others. Keeps those of the delegate. */
static void cut_graph(struct host *host, const TfLiteIntArray *claimed) {
  const int nodes = host->graph.plan->size;
  bool *ours = memory((size_t)nodes, sizeof *ours);
  int *part = memory((size_t)nodes, sizeof *part), assigned = 0;
  for (int i = 0; i < nodes; i++) part[i] = -1;
  for (int i = 0; i < claimed->size; i++) ours[claimed->data[i]] = true;
  host->cut = memory((size_t)nodes, sizeof *host->cut);
  host->part_count = 0;
  for (int p = 0; assigned < nodes; p++) {
    TfLiteIntArray *members = int_array(nodes, NULL);
    members->size = 0;
    bool kind = false;
    for (bool grew = true; grew;) {
      grew = false;
      for (int i = 0; i < nodes; i++) {
        const TfLiteIntArray *inputs = host->graph.nodes[i].inputs;
        bool ready = part[i] < 0 && (members->size == 0 || ours[i] == kind);
        for (int j = 0; ready && j < inputs->size; j++) ready = is_ready(host, part, inputs->data[j]);
        if (!ready) continue;
        kind = ours[i];
        part[i] = p;
        members->data[members->size++] = i;
        assigned++;
        grew = true;
      }
    }
    if (members->size == 0) fail("the operators of the file have no order");
    if (!kind) continue;
    TfLiteIntArray *inputs = int_array((int)host->context.tensors_size, NULL);
    TfLiteIntArray *outputs = int_array((int)host->context.tensors_size, NULL);
    inputs->size = outputs->size = 0;
    for (int t = 0; t < (int)host->context.tensors_size; t++) {
      const bool written = host->writer[t] >= 0 && part[host->writer[t]] == p;
      bool inside = false, outside = host->result[t]; /* where it is read */
      for (int i = 0; i < nodes; i++)
        for (int j = 0; j < host->graph.nodes[i].inputs->size; j++) {
          if (host->graph.nodes[i].inputs->data[j] != t) continue;
          inside = inside || part[i] == p;
          outside = outside || part[i] != p;
        }
      if (!written && inside) inputs->data[inputs->size++] = t;
      if (written && outside) outputs->data[outputs->size++] = t;
    }
    host->cut[host->part_count++] =
        (TfLiteDelegateParams){.nodes_to_replace = members, .input_tensors = inputs, .output_tensors = outputs};
  }
}

static TfLiteStatus preview(TfLiteContext *context, const TfLiteIntArray *nodes, TfLiteDelegateParams **parts,
                            int *count) {
  struct host *host = context->impl_;
  cut_graph(host, nodes);
  *parts = host->cut;
  *count = host->part_count;
  return kTfLiteOk;
}

static TfLiteStatus replace(TfLiteContext *context, TfLiteRegistration registration, const TfLiteIntArray *nodes,
                            TfLiteDelegate *delegate) {
  struct host *host = context->impl_;
  cut_graph(host, nodes);
  host->parts = memory((size_t)host->part_count, sizeof *host->parts);
  for (int p = 0; p < host->part_count; p++) {
    host->cut[p].delegate = delegate;
    host->parts[p].registration = registration;
    host->parts[p].node.user_data = registration.init(context, (const char *)&host->cut[p], sizeof host->cut[p]);
  }
  return kTfLiteOk;
}

/* ---- The inference ---- */

/* Random numbers of both signs, unless it has values. */
static void give_memory(TfLiteTensor *tensor) {
  if (tensor->data.data) return;
  const bool bytes = tensor->type == kTfLiteInt8 || tensor->type == kTfLiteBool;
  size_t count = 1;
  for (int i = 0; i < tensor->dims->size; i++) count *= (size_t)tensor->dims->data[i];
  tensor->bytes = count * (bytes ? 1 : tensor->type == kTfLiteInt64 ? 8 : 4);
  tensor->data.data = memory(tensor->bytes, 1);
  if (tensor->type == kTfLiteFloat32)
    for (size_t i = 0; i < count; i++) tensor->data.f[i] = (float)rand() / (float)RAND_MAX - 0.5f;
  else
    for (size_t i = 0; i < tensor->bytes; i++) ((uint8_t *)tensor->data.data)[i] = (uint8_t)(rand() >> 8);
}

/* Between two calls of getppid, which an emulator sees. */
static void infer(struct host *host) {
  (void)getppid();
  for (int p = 0; p < host->part_count; p++)
    if (host->parts[p].registration.invoke(&host->context, &host->parts[p].node) != kTfLiteOk) fail("a part failed");
  (void)getppid();
}

int main(int argc, char **argv) {
  if (argc < 2 || argc > 3) fail("expected the name of a .tflite file and a number of inferences");
  const uint8_t *model = target(read_file(argv[1]));
  int graphs, tensors, nodes, codes;
  const uint8_t *code_tables = vector(model, 1, &codes), *graph = element(vector(model, 2, &graphs), 0);
  const uint8_t *buffers = vector(model, 4, &codes);
  if (graphs != 1) fail("expected a file of one graph");
  const uint8_t *tensor_tables = vector(graph, 0, &tensors), *node_tables = vector(graph, 3, &nodes);

  struct host host = {.graph = {.nodes = memory((size_t)nodes, sizeof *host.graph.nodes),
                                .registrations = memory((size_t)nodes, sizeof *host.graph.registrations),
                                .plan = int_array(nodes, NULL)},
                      .writer = memory((size_t)tensors, sizeof *host.writer),
                      .result = memory((size_t)tensors, sizeof *host.result),
                      .context = {.tensors_size = (size_t)tensors,
                                  .tensors = memory((size_t)tensors, sizeof *host.context.tensors),
                                  .GetExecutionPlan = get_plan,
                                  .ResizeTensor = resize,
                                  .ReportError = report,
                                  .GetNodeAndRegistration = get_node,
                                  .ReplaceNodeSubsetsWithDelegateKernels = replace,
                                  .PreviewDelegatePartitioning = preview,
                                  .recommended_num_threads = 1}};
  host.context.impl_ = &host;
  for (int t = 0; t < tensors; t++) {
    read_tensor(element(tensor_tables, t), buffers, &host.context.tensors[t]);
    host.writer[t] = -1;
  }
  const TfLiteIntArray *results = ints(graph, 2);
  for (int i = 0; i < results->size; i++) host.result[results->data[i]] = true;
  double macs = 0;
  for (int i = 0; i < nodes; i++) {
    TfLiteNode *node = &host.graph.nodes[i];
    TfLiteRegistration *registration = &host.graph.registrations[i];
    read_node(element(node_tables, i), code_tables, node, registration);
    host.graph.plan->data[i] = i;
    for (int j = 0; j < node->outputs->size; j++) host.writer[node->outputs->data[j]] = i;
    if (registration->custom_name && strcmp(registration->custom_name, "LceBconv2d") == 0)
      macs += macs_of(host.context.tensors, node);
  }

  TfLiteDelegate *delegate = tflite_plugin_create_delegate(NULL, NULL, 0, NULL);
  if (!delegate || delegate->Prepare(&host.context, delegate) != kTfLiteOk) fail("the delegate refuses the file");
  if (host.part_count == 0) fail("the delegate takes no operator of the file");
  for (int p = 0; p < host.part_count; p++) {
    if (host.parts[p].registration.prepare(&host.context, &host.parts[p].node) != kTfLiteOk)
      fail("the delegate cannot prepare the file");
    const TfLiteIntArray *inputs = host.cut[p].input_tensors, *outputs = host.cut[p].output_tensors;
    for (int i = 0; i < inputs->size; i++) give_memory(&host.context.tensors[inputs->data[i]]);
    for (int i = 0; i < outputs->size; i++) give_memory(&host.context.tensors[outputs->data[i]]);
  }
  for (int i = 0; i < (argc > 2 ? atoi(argv[2]) : 1); i++) infer(&host);
  printf("%.0f MAC, %d parts\n", macs, host.part_count);
  return 0;
}
