/* What the delegate takes of random graphs, against the definition applied until nothing changes:
 *   all of LCE's operators; of the others that it knows those behind a taken one, but pooling only if nothing but
 *   QUANTIZE reads it, and those whose result only taken ones read, but no QUANTIZE; without the partitions that then
 *   hold none of LCE's.
 *     claims [graphs] [seed]
 * or the milliseconds for a chain of operators that ends in LceQuantize:
 *     claims chain LENGTH
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../src/claim.h"
#include "../src/operators.h"
#include "host.h"

enum { CHANNELS = 32, MOST = 40 };

struct host {
  struct host_graph graph;
  TfLiteContext context;
  int count, tensors_used;
  TfLiteTensor *tensors;
  TfLiteDelegateParams *partitions;
  int partition_count;
};

static uint64_t state = 1;

static int below(int n) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (int)((state >> 33) % (uint64_t)n);
}

static void report(TfLiteContext *context, const char *message, ...) {
  (void)context;
  fprintf(stderr, "%s\n", message);
}

static void free_partitions(struct host *host) {
  for (int p = 0; p < host->partition_count; p++) free(host->partitions[p].nodes_to_replace);
  host->partition_count = 0;
}

/* Partitions of this host: runs of nodes that stand next to each other in the plan. */
static TfLiteStatus preview(TfLiteContext *context, const TfLiteIntArray *nodes, TfLiteDelegateParams **partitions,
                            int *count) {
  struct host *host = context->impl_;
  free_partitions(host);
  for (int i = 0, k = 0; i < host->count; i++) {
    if (k == nodes->size || host->graph.plan->data[i] != nodes->data[k]) continue;
    const int first = k;
    while (k < nodes->size && i < host->count && host->graph.plan->data[i] == nodes->data[k]) {
      i++;
      k++;
    }
    host->partitions[host->partition_count++].nodes_to_replace = int_array(k - first, nodes->data + first);
  }
  *partitions = host->partitions;
  *count = host->partition_count;
  return kTfLiteOk;
}

static int add_tensor(struct host *host, TfLiteType type, int channels) {
  TfLiteTensor *t = &host->tensors[host->tensors_used];
  *t = (TfLiteTensor){
      .type = type, .dims = int_array(4, (int[]){1, 2, 2, channels}), .allocation_type = 2, .name = "tensor"};
  t->params.scale = type == kTfLiteInt8;
  return host->tensors_used++;
}

static void make_host(struct host *host, int count) {
  *host = (struct host){.count = count};
  host->tensors = calloc((size_t)count + 3, sizeof *host->tensors);
  host->graph.nodes = calloc((size_t)count, sizeof *host->graph.nodes);
  host->graph.registrations = calloc((size_t)count, sizeof *host->graph.registrations);
  host->partitions = calloc((size_t)count + 1, sizeof *host->partitions);
  host->graph.plan = int_array(count, NULL);
  host->context = (TfLiteContext){.tensors = host->tensors,
                                  .impl_ = host,
                                  .ReportError = report,
                                  .GetExecutionPlan = get_plan,
                                  .GetNodeAndRegistration = get_node,
                                  .PreviewDelegatePartitioning = preview,
                                  .recommended_num_threads = 1};
}

static void free_host(struct host *host) {
  free_partitions(host);
  for (int i = 0; i < host->tensors_used; i++) free(host->tensors[i].dims);
  for (int i = 0; i < host->count; i++) {
    free(host->graph.nodes[i].inputs);
    free(host->graph.nodes[i].outputs);
  }
  free(host->tensors);
  free(host->graph.nodes);
  free(host->graph.registrations);
  free(host->partitions);
  free(host->graph.plan);
}

static void set_node(struct host *host, int node, enum node_kind kind, int inputs, const int *in, int out) {
  static const int builtins[] = {[NODE_NOT_OURS] = 14,
                                 [NODE_QUANTIZE] = kTfLiteBuiltinCustom,
                                 [NODE_DEQUANTIZE] = kTfLiteBuiltinCustom,
                                 [NODE_ADD] = kTfLiteBuiltinAdd,
                                 [NODE_SUBTRACT] = kTfLiteBuiltinSub,
                                 [NODE_MULTIPLY] = kTfLiteBuiltinMul,
                                 [NODE_RELU] = kTfLiteBuiltinRelu,
                                 [NODE_RELU6] = kTfLiteBuiltinRelu6,
                                 [NODE_RELU_N1_TO_1] = kTfLiteBuiltinReluN1To1,
                                 [NODE_CONCATENATE] = kTfLiteBuiltinConcatenation,
                                 [NODE_TO_INT8] = kTfLiteBuiltinQuantize,
                                 [NODE_FROM_INT8] = kTfLiteBuiltinDequantize,
                                 [NODE_AVERAGE_POOL] = kTfLiteBuiltinAveragePool2d,
                                 [NODE_MAX_POOL] = kTfLiteBuiltinMaxPool2d};
  static TfLiteArithmeticParams arithmetic = {kTfLiteActNone};
  static TfLiteConcatenationParams concatenation = {3, kTfLiteActNone};
  static TfLitePoolParams pool = {kTfLitePaddingSame, 1, 1, 1, 1, kTfLiteActNone};
  const bool pools = kind == NODE_AVERAGE_POOL || kind == NODE_MAX_POOL;
  host->graph.nodes[node] = (TfLiteNode){.inputs = int_array(inputs, in), .outputs = int_array(1, &out)};
  host->graph.nodes[node].builtin_data = kind == NODE_CONCATENATE ? (void *)&concatenation
                                         : pools                  ? (void *)&pool
                                                                  : &arithmetic;
  host->graph.registrations[node] = (TfLiteRegistration){
      .builtin_code = builtins[kind],
      .custom_name = kind == NODE_QUANTIZE || kind == NODE_DEQUANTIZE ? node_types[kind].name : NULL};
}

/* ---- Random graphs ---- */

static int some_tensor(const struct host *host, TfLiteType type, int channels) {
  for (int tries = 0; tries < 64; tries++) {
    /* Near ones more often, for long chains. */
    const int t = below(3) ? below(host->tensors_used) : host->tensors_used - 1 - below(host->tensors_used < 4 ? 1 : 4);
    if (host->tensors[t].type == type && host->tensors[t].dims->data[3] == channels) return t;
  }
  return type == kTfLiteInt32 ? 1 : type == kTfLiteInt8 ? 2 : 0;
}

static void random_graph(struct host *host) {
  static const enum node_kind kinds[] = {NODE_NOT_OURS,     NODE_NOT_OURS, NODE_QUANTIZE,     NODE_DEQUANTIZE,
                                         NODE_ADD,          NODE_ADD,      NODE_SUBTRACT,     NODE_MULTIPLY,
                                         NODE_RELU,         NODE_RELU6,    NODE_RELU_N1_TO_1, NODE_CONCATENATE,
                                         NODE_AVERAGE_POOL, NODE_MAX_POOL, NODE_TO_INT8,      NODE_FROM_INT8};
  make_host(host, 1 + below(MOST));
  add_tensor(host, kTfLiteFloat32, CHANNELS);
  add_tensor(host, kTfLiteInt32, CHANNELS / 32);
  add_tensor(host, kTfLiteInt8, CHANNELS);
  int *const ids = host->graph.plan->data; /* nodes are not numbered in the order of the plan */
  for (int i = 0; i < host->count; i++) {
    const int j = below(i + 1);
    ids[i] = ids[j];
    ids[j] = i;
  }
  for (int i = 0; i < host->count; i++) {
    const enum node_kind kind = kinds[below(16)];
    const int channels = below(4) ? CHANNELS : 2 * CHANNELS;
    const bool widens = kind == NODE_CONCATENATE;
    const bool from_int8 = kind == NODE_FROM_INT8 || (kind == NODE_QUANTIZE && below(2));
    const int in[] = {some_tensor(host,
                                  kind == NODE_DEQUANTIZE ? kTfLiteInt32
                                  : from_int8             ? kTfLiteInt8
                                                          : kTfLiteFloat32,
                                  kind == NODE_DEQUANTIZE ? 1
                                  : widens                ? CHANNELS
                                                          : channels),
                      some_tensor(host, kTfLiteFloat32, widens ? CHANNELS : channels)};
    const bool two = kind == NODE_ADD || kind == NODE_SUBTRACT || kind == NODE_MULTIPLY || widens ||
                     (kind == NODE_NOT_OURS && below(2));
    const int found = host->tensors[in[0]].dims->data[3];
    const int width = kind == NODE_QUANTIZE ? found / 32 : kind == NODE_DEQUANTIZE ? 32 : widens ? 2 * CHANNELS : found;
    const int out = add_tensor(host,
                               kind == NODE_QUANTIZE  ? kTfLiteInt32
                               : kind == NODE_TO_INT8 ? kTfLiteInt8
                                                      : kTfLiteFloat32,
                               width);
    set_node(host, ids[i], kind, two ? 2 : 1, in, out);
  }
  host->context.tensors_size = (size_t)host->tensors_used;
}

/* ---- The definition ---- */

static void claim_by_definition(struct host *host, bool *claimed) {
  struct node nodes[MOST]; /* by node */
  for (int n = 0; n < host->count; n++) {
    read_node(&host->context, n, &nodes[n]);
    claimed[n] = is_lce(&nodes[n]);
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (int n = 0; n < host->count; n++) {
      bool after = false, others = false, any = false, quantized = true;
      if (claimed[n] || nodes[n].kind == NODE_NOT_OURS) continue;
      for (int m = 0; m < host->count; m++) {
        for (int j = 0; j < nodes[n].inputs->size; j++)
          after = after || (claimed[m] && nodes[m].outputs->data[0] == nodes[n].inputs->data[j]);
        for (int j = 0; j < nodes[m].inputs->size; j++)
          if (nodes[m].inputs->data[j] == nodes[n].outputs->data[0]) {
            any = true;
            others = others || !claimed[m];
            quantized = quantized && nodes[m].kind == NODE_TO_INT8;
          }
      }
      const bool pool = nodes[n].kind == NODE_AVERAGE_POOL || nodes[n].kind == NODE_MAX_POOL;
      if ((any && !others && nodes[n].kind != NODE_TO_INT8) || (after && (!pool || (any && quantized))))
        claimed[n] = changed = true;
    }
  }
  for (int i = 0; i < host->count;) {
    int end = i;
    bool lce = false;
    while (end < host->count && claimed[host->graph.plan->data[end]]) {
      lce = is_lce(&nodes[host->graph.plan->data[end++]]) || lce;
    }
    for (int k = i; k < end && !lce; k++) claimed[host->graph.plan->data[k]] = false;
    i = end + 1;
  }
}

static int compare(int number) {
  struct host host;
  random_graph(&host);
  bool expected[MOST];
  claim_by_definition(&host, expected);
  const struct options options = {.fuse = true};
  TfLiteIntArray *nodes;
  int failed = claim(&host.context, &options, &nodes) != kTfLiteOk, k = 0;
  for (int i = 0; i < host.count && !failed; i++) {
    const bool found = k < nodes->size && nodes->data[k] == host.graph.plan->data[i];
    k += found;
    failed = found != expected[host.graph.plan->data[i]];
    if (failed)
      fprintf(stderr, "graph %d: operator %d of %d %s taken\n", number, i, host.count, found ? "is" : "is not");
  }
  free(nodes);
  free_host(&host);
  return failed;
}

static void time_chain(int length) {
  struct host host;
  make_host(&host, length);
  int last = add_tensor(&host, kTfLiteFloat32, CHANNELS);
  for (int i = 0; i < length; i++) {
    const enum node_kind kind = i + 1 < length ? NODE_ADD : NODE_QUANTIZE;
    const int in[] = {last, 0};
    last = add_tensor(&host, kind == NODE_ADD ? kTfLiteFloat32 : kTfLiteInt32,
                      kind == NODE_ADD ? CHANNELS : CHANNELS / 32);
    set_node(&host, host.graph.plan->data[i] = i, kind, kind == NODE_ADD ? 2 : 1, in, last);
  }
  host.context.tensors_size = (size_t)host.tensors_used;
  const struct options options = {.fuse = true};
  struct timespec start, end;
  TfLiteIntArray *nodes;
  clock_gettime(CLOCK_MONOTONIC, &start);
  const TfLiteStatus status = claim(&host.context, &options, &nodes);
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("%d of %d taken, %.3f ms\n", status == kTfLiteOk ? nodes->size : -1, length,
         1e3 * (double)(end.tv_sec - start.tv_sec) + 1e-6 * (double)(end.tv_nsec - start.tv_nsec));
  free(nodes);
  free_host(&host);
}

int main(int argc, char **argv) {
  if (argc > 2 && strcmp(argv[1], "chain") == 0) {
    time_chain(atoi(argv[2]));
    return 0;
  }
  const int graphs = argc > 1 ? atoi(argv[1]) : 1000;
  if (argc > 2) state = (uint64_t)atoi(argv[2]);
  int failed = 0;
  for (int i = 0; i < graphs && !failed; i++) failed = compare(i);
  printf("%d graphs: %s\n", graphs, failed ? "failed" : "passed");
  return failed;
}
