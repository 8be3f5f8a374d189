/* Chooses the delegate's nodes: LCE's, and those around them that become part of a convolution's pass. */
#include "claim.h"

#include <stdlib.h>

#include "memory.h"
#include "operators.h"
#include "tensors.h"

struct graph {
  int count;
  struct node *nodes;
  bool *claimed;
  size_t tensors;
  int *producer;               /* of each tensor: position in nodes, or -1 */
  int *readers, *reader_start; /* of each tensor: positions in nodes, one for each input that is this tensor */
  int *unclaimed;              /* of each tensor: how many of its readers are not claimed yet */
  int *waiting;                /* claimed operators whose neighbours are not checked yet */
  int *position;               /* of each node that is in the graph: position in nodes */
};

static bool is_tensor(const struct graph *graph, int tensor) { return tensor >= 0 && (size_t)tensor < graph->tensors; }

/* Finds the readers of each tensor; false if there is no memory. */
static bool find_readers(struct graph *graph) {
  size_t mentions = 0;
  graph->reader_start = allocate(graph->tensors + 2, sizeof *graph->reader_start);
  if (!graph->reader_start) return false;
  for (int i = 0; i < graph->count; i++) {
    const TfLiteIntArray *inputs = graph->nodes[i].inputs;
    for (int j = 0; inputs && j < inputs->size; j++)
      if (is_tensor(graph, inputs->data[j])) {
        graph->reader_start[inputs->data[j] + 2]++;
        mentions++;
      }
  }
  graph->readers = allocate(mentions, sizeof *graph->readers);
  graph->unclaimed = allocate(graph->tensors, sizeof *graph->unclaimed);
  if (!graph->readers || !graph->unclaimed) return false;
  for (size_t t = 0; t < graph->tensors; t++) {
    graph->unclaimed[t] = graph->reader_start[t + 2];
    graph->reader_start[t + 2] += graph->reader_start[t + 1];
  }
  for (int i = 0; i < graph->count; i++) {
    const TfLiteIntArray *inputs = graph->nodes[i].inputs;
    for (int j = 0; inputs && j < inputs->size; j++)
      if (is_tensor(graph, inputs->data[j])) graph->readers[graph->reader_start[inputs->data[j] + 1]++] = i;
  }
  return true;
}

/* Whether nothing but QUANTIZE reads an operator's output. */
static bool only_quantized(const struct graph *graph, int position) {
  const int output = graph->nodes[position].outputs->data[0];
  for (int r = graph->reader_start[output]; r < graph->reader_start[output + 1]; r++)
    if (graph->nodes[graph->readers[r]].kind != NODE_TO_INT8) return false;
  return graph->reader_start[output] < graph->reader_start[output + 1];
}

/* Grows the claim from LCE's operators until nothing changes: each claimed operator is checked once. */
static bool grow(struct graph *graph) {
  int waiting = 0;
  graph->waiting = allocate((size_t)graph->count, sizeof *graph->waiting);
  if (!graph->waiting || !find_readers(graph)) return false;
  for (int i = 0; i < graph->count; i++)
    if (graph->claimed[i]) graph->waiting[waiting++] = i;
  while (waiting > 0) {
    const struct node *node = &graph->nodes[graph->waiting[--waiting]];
    /* Before claimed operators: those that compute a tensor whose readers are all claimed; but no QUANTIZE, which would
     * bring all operators before it without saving a map of floats. */
    for (int j = 0; j < node->inputs->size; j++) {
      const int t = node->inputs->data[j];
      if (!is_tensor(graph, t) || --graph->unclaimed[t] > 0 || graph->producer[t] < 0) continue;
      const int before = graph->producer[t];
      const enum node_kind kind = graph->nodes[before].kind;
      if (graph->claimed[before] || kind == NODE_NOT_OURS || kind == NODE_TO_INT8) continue;
      graph->claimed[before] = true;
      graph->waiting[waiting++] = before;
    }
    /* Behind them: all but pooling, which alone gains nothing; before others it would cut the partition in two. Before
     * QUANTIZE, which follows, it leaves integers of fewer pixels instead of all floats. */
    const int output = node->outputs->data[0];
    for (int r = graph->reader_start[output]; r < graph->reader_start[output + 1]; r++) {
      const int behind = graph->readers[r];
      const enum node_kind kind = graph->nodes[behind].kind;
      if (graph->claimed[behind] || kind == NODE_NOT_OURS || (node_types[kind].pools && !only_quantized(graph, behind)))
        continue;
      graph->claimed[behind] = true;
      graph->waiting[waiting++] = behind;
    }
  }
  return true;
}

static void list_claimed(const struct graph *graph, TfLiteIntArray *nodes) {
  nodes->size = 0;
  for (int i = 0; i < graph->count; i++)
    if (graph->claimed[i]) nodes->data[nodes->size++] = graph->nodes[i].index;
}

/* Gives back the partitions without an operator of LCE: they would only pass tensors to and fro. */
static void give_back(TfLiteContext *context, struct graph *graph, TfLiteIntArray *nodes) {
  TfLiteDelegateParams *partitions;
  int count = 0;
  if (!context->PreviewDelegatePartitioning ||
      context->PreviewDelegatePartitioning(context, nodes, &partitions, &count) != kTfLiteOk)
    return;
  for (int p = 0; p < count; p++) {
    const TfLiteIntArray *members = partitions[p].nodes_to_replace;
    bool useful = false;
    for (int i = 0; i < members->size; i++) useful = useful || is_lce(&graph->nodes[graph->position[members->data[i]]]);
    for (int i = 0; i < members->size && !useful; i++) graph->claimed[graph->position[members->data[i]]] = false;
  }
}

/* Fails if an operator reads a tensor before it is written, or writes one again: TFLite cannot cut such graphs into
 * partitions, and does not notice. */
static TfLiteStatus check_order(TfLiteContext *context, const struct graph *graph) {
  for (int i = 0; i < graph->count; i++) {
    const struct node *node = &graph->nodes[i];
    for (int j = 0; node->inputs && j < node->inputs->size; j++) {
      const int t = node->inputs->data[j];
      if (t < 0 || (size_t)t >= context->tensors_size || graph->producer[t] < i) continue;
      context->ReportError(context, "larq-rep: operator %d reads tensor %d '%.60s' before operator %d writes it.",
                           node->index, t, tensor_name(context, t), graph->nodes[graph->producer[t]].index);
      return kTfLiteError;
    }
    for (int j = 0; node->outputs && j < node->outputs->size; j++) {
      const int t = node->outputs->data[j];
      if (t < 0 || (size_t)t >= context->tensors_size || (graph->producer[t] == i && !is_constant(context, t)))
        continue;
      context->ReportError(context, "larq-rep: operator %d writes tensor %d '%.60s', which %s.", node->index, t,
                           tensor_name(context, t),
                           is_constant(context, t) ? "is a constant" : "a later one writes too");
      return kTfLiteError;
    }
  }
  return kTfLiteOk;
}

/* Reads the operators of the graph; LCE's are claimed. */
static TfLiteStatus read_nodes(TfLiteContext *context, const TfLiteIntArray *plan, struct graph *graph) {
  int nodes = 0;
  for (int i = 0; i < plan->size; i++) nodes = plan->data[i] >= nodes ? plan->data[i] + 1 : nodes;
  graph->nodes = allocate((size_t)graph->count, sizeof *graph->nodes);
  graph->claimed = allocate((size_t)graph->count, sizeof *graph->claimed);
  graph->producer = allocate(graph->tensors, sizeof *graph->producer);
  graph->position = allocate((size_t)nodes, sizeof *graph->position);
  if (!graph->nodes || !graph->claimed || !graph->producer || !graph->position) return no_memory(context);
  for (size_t t = 0; t < graph->tensors; t++) graph->producer[t] = -1;
  bool any = false;
  for (int i = 0; i < graph->count; i++) {
    struct node *node = &graph->nodes[i];
    if (read_node(context, plan->data[i], node) != kTfLiteOk) return kTfLiteError;
    for (int j = 0; node->outputs && j < node->outputs->size; j++)
      if (is_tensor(graph, node->outputs->data[j])) graph->producer[node->outputs->data[j]] = i;
    graph->position[node->index] = i;
    graph->claimed[i] = is_lce(node);
    any = any || graph->claimed[i];
  }
  return any ? check_order(context, graph) : kTfLiteOk;
}

TfLiteStatus claim(TfLiteContext *context, const struct options *options, TfLiteIntArray **nodes) {
  TfLiteIntArray *plan;
  *nodes = NULL;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) {
    context->ReportError(context, "larq-rep: the runtime gives no execution plan.");
    return kTfLiteError;
  }
  struct graph graph = {.count = plan->size, .tensors = context->tensors_size};
  TfLiteStatus status = read_nodes(context, plan, &graph);
  if (status == kTfLiteOk && options->fuse && !grow(&graph)) status = no_memory(context);
  if (status == kTfLiteOk) {
    *nodes = malloc(sizeof **nodes + (size_t)graph.count * sizeof(int));
    if (*nodes)
      list_claimed(&graph, *nodes);
    else
      status = no_memory(context);
  }
  if (status == kTfLiteOk && options->fuse) {
    give_back(context, &graph, *nodes);
    list_claimed(&graph, *nodes);
  }
  free(graph.nodes);
  free(graph.claimed);
  free(graph.producer);
  free(graph.readers);
  free(graph.reader_start);
  free(graph.unclaimed);
  free(graph.waiting);
  free(graph.position);
  return status;
}
