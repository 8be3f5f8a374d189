#include "plan.h"

#include <stdlib.h>

#include "convolution.h"
#include "memory.h"
#include "operators.h"
#include "shapes.h"

struct plan *make_plan(TfLiteContext *context, const TfLiteDelegateParams *params) {
  const TfLiteIntArray *nodes = params->nodes_to_replace;
  struct plan *plan = calloc(1, sizeof *plan);
  if (plan) {
    plan->tensor_count = context->tensors_size;
    plan->nodes = allocate((uint64_t)nodes->size, sizeof *plan->nodes);
    plan->producer = allocate(plan->tensor_count, sizeof *plan->producer);
    plan->is_output = allocate(plan->tensor_count, sizeof *plan->is_output);
  }
  if (!plan || !plan->nodes || !plan->producer || !plan->is_output) {
    context->ReportError(context, "larq-rep: no memory for a part of the graph of %d operators.", nodes->size);
    free_plan(plan);
    return NULL;
  }
  for (size_t t = 0; t < plan->tensor_count; t++) plan->producer[t] = -1;
  for (int i = 0; i < params->output_tensors->size; i++) plan->is_output[params->output_tensors->data[i]] = true;
  for (; plan->node_count < nodes->size; plan->node_count++) {
    struct node *node = &plan->nodes[plan->node_count];
    const bool read = read_node(context, nodes->data[plan->node_count], node) == kTfLiteOk;
    if (read && node->kind == NODE_NOT_OURS)
      context->ReportError(context, "larq-rep: operator %d has changed since it was taken over.", node->index);
    if (!read || node->kind == NODE_NOT_OURS) {
      free_plan(plan);
      return NULL;
    }
    plan->producer[node->outputs->data[0]] = plan->node_count;
  }
  return plan;
}

bool same_steps(const struct plan *plan, const struct shape *shapes) {
  if (!plan->steps) return false;
  for (int i = 0; i < plan->node_count; i++) {
    const struct node *node = &plan->nodes[i];
    const int output = node->outputs->data[0];
    if (channels_of_shape(&shapes[output]) != channels_of_shape(&plan->shapes[output])) return false;
    for (int j = 0; j < node->inputs->size; j++) {
      const int t = node->inputs->data[j];
      if (t >= 0 && (channels_of_shape(&shapes[t]) != channels_of_shape(&plan->shapes[t]) ||
                     is_broadcast(shapes, node, t) != is_broadcast(plan->shapes, node, t)))
        return false;
    }
  }
  return true;
}

void free_steps(struct plan *plan) {
  for (int s = 0; s < plan->step_count; s++) {
    free_convolution(plan->steps[s].convolution);
    free(plan->steps[s].copies);
    for (int i = 0; i < plan->steps[s].count; i++) {
      free(plan->steps[s].program[i].constant);
      free(plan->steps[s].program[i].source_channels);
    }
  }
  free(plan->tasks);
  free(plan->steps);
  free(plan->buffers);
  plan->tasks = NULL;
  plan->steps = NULL;
  plan->buffers = NULL;
  plan->task_count = plan->step_count = plan->buffer_count = 0;
}

void free_plan(struct plan *plan) {
  if (!plan) return;
  free_steps(plan);
  free(plan->nodes);
  free(plan->producer);
  free(plan->is_output);
  free(plan->shapes);
  free(plan);
}
