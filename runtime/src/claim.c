/* Which nodes the delegate takes: LCE's, and those around them that become part of a convolution's pass. */
#include <stdlib.h>
#include <string.h>

#include "delegate.h"

struct graph {
  int count;
  struct operator * ops;
  bool *claimed;
  int *producer;   /* of each tensor: position in ops, or -1 */
};

static bool is_lce(enum kind kind) { return kind >= QUANTIZE && kind <= BMAXPOOL; }

/* Whether all readers of a tensor are claimed, and there are some. */
static bool all_readers_claimed(const struct graph *graph, int tensor) {
  int readers = 0;
  for (int i = 0; i < graph->count; i++)
    for (int j = 0; graph->ops[i].inputs && j < graph->ops[i].inputs->size; j++)
      if (graph->ops[i].inputs->data[j] == tensor) {
        if (!graph->claimed[i]) return false;
        readers++;
      }
  return readers > 0;
}

static bool follows_claimed(const struct graph *graph, const struct operator * op) {
  for (int j = 0; j < op->inputs->size; j++) {
    const int producer = graph->producer[op->inputs->data[j]];
    if (producer >= 0 && graph->claimed[producer]) return true;
  }
  return false;
}

/* Grows the claim from LCE's operators until nothing changes. */
static void grow(struct graph *graph) {
  for (bool changed = true; changed;) {
    changed = false;
    for (int i = 0; i < graph->count; i++) {
      const struct operator * op = &graph->ops[i];
      if (graph->claimed[i] || op->kind == NOT_OURS) continue;
      const bool after = follows_claimed(graph, op), before = all_readers_claimed(graph, op->outputs->data[0]);
      /* A pooling gains nothing by itself, but before claimed operators it would cut the partition in two. */
      if (before || (after && op->kind != AVERAGE_POOL && op->kind != MAX_POOL)) graph->claimed[i] = changed = true;
    }
  }
}

static TfLiteIntArray *claimed_nodes(const struct graph *graph) {
  TfLiteIntArray *nodes = malloc(sizeof *nodes + (size_t)graph->count * sizeof(int));
  if (!nodes) return NULL;
  nodes->size = 0;
  for (int i = 0; i < graph->count; i++)
    if (graph->claimed[i]) nodes->data[nodes->size++] = graph->ops[i].node;
  return nodes;
}

/* Gives back the partitions without an operator of LCE: handing tensors to and fro is all that they would add. */
static void give_back(TfLiteContext *context, struct graph *graph, TfLiteIntArray *nodes) {
  TfLiteDelegateParams *partitions;
  int count = 0;
  if (!context->PreviewDelegatePartitioning ||
      context->PreviewDelegatePartitioning(context, nodes, &partitions, &count) != kTfLiteOk)
    return;
  for (int p = 0; p < count; p++) {
    const TfLiteIntArray *members = partitions[p].nodes_to_replace;
    bool useful = false;
    for (int pass = 0; pass < 2 && !useful; pass++)
      for (int i = 0; i < members->size; i++)
        for (int j = 0; j < graph->count; j++)
          if (graph->ops[j].node == members->data[i]) {
            if (pass == 0)
              useful = useful || is_lce(graph->ops[j].kind);
            else
              graph->claimed[j] = false;
          }
  }
}

/* Fails where an operator reads what is not yet written, or writes what is: TFLite cannot cut such graphs into
 * partitions, and does not notice. */
static TfLiteStatus check_order(TfLiteContext *context, const struct graph *graph) {
  for (int i = 0; i < graph->count; i++) {
    const struct operator * op = &graph->ops[i];
    for (int j = 0; op->inputs && j < op->inputs->size; j++) {
      const int t = op->inputs->data[j];
      if (t < 0 || (size_t)t >= context->tensors_size || graph->producer[t] < i) continue;
      context->ReportError(context, "larq-rep: operator %d reads tensor %d '%.60s' before operator %d writes it.",
                           op->node, t, tensor_name(context, t), graph->ops[graph->producer[t]].node);
      return kTfLiteError;
    }
    for (int j = 0; op->outputs && j < op->outputs->size; j++) {
      const int t = op->outputs->data[j];
      if (t < 0 || (size_t)t >= context->tensors_size || (graph->producer[t] == i && !is_constant(context, t))) continue;
      context->ReportError(context, "larq-rep: operator %d writes tensor %d '%.60s', which %s.", op->node, t,
                           tensor_name(context, t), is_constant(context, t) ? "is a constant" : "a later one writes too");
      return kTfLiteError;
    }
  }
  return kTfLiteOk;
}

TfLiteStatus claim(TfLiteContext *context, const struct options *options, TfLiteIntArray **nodes) {
  TfLiteIntArray *plan;
  *nodes = NULL;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return kTfLiteError;
  struct graph graph = {.count = plan->size};
  graph.ops = calloc((size_t)plan->size + 1, sizeof *graph.ops);
  graph.claimed = calloc((size_t)plan->size + 1, sizeof *graph.claimed);
  graph.producer = malloc((context->tensors_size + 1) * sizeof *graph.producer);
  TfLiteStatus status = graph.ops && graph.claimed && graph.producer ? kTfLiteOk : kTfLiteError;
  if (status == kTfLiteOk)
    for (size_t t = 0; t < context->tensors_size; t++) graph.producer[t] = -1;
  for (int i = 0; i < graph.count && status == kTfLiteOk; i++) {
    status = read_operator(context, plan->data[i], &graph.ops[i]);
    const TfLiteIntArray *outputs = graph.ops[i].outputs;
    for (int j = 0; status == kTfLiteOk && outputs && j < outputs->size; j++)
      if (outputs->data[j] >= 0 && (size_t)outputs->data[j] < context->tensors_size)
        graph.producer[outputs->data[j]] = i;
    graph.claimed[i] = is_lce(graph.ops[i].kind);
  }
  bool any = false;
  for (int i = 0; i < graph.count; i++) any = any || (status == kTfLiteOk && graph.claimed[i]);
  if (any) status = check_order(context, &graph);
  if (status == kTfLiteOk) {
    if (options->fuse) grow(&graph);
    *nodes = claimed_nodes(&graph);
    if (*nodes && options->fuse) {
      give_back(context, &graph, *nodes);
      free(*nodes);
      *nodes = claimed_nodes(&graph);
    }
    if (!*nodes) status = kTfLiteError;
  }
  free(graph.ops);
  free(graph.claimed);
  free(graph.producer);
  return status;
}
