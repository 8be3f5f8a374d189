#include "planner.h"

#include <stdio.h>
#include <stdlib.h>

#include "memory.h"
#include "operators.h"
#include "shapes.h"
#include "tensors.h"

int channels_of(const struct planner *p, int tensor) { return channels_of_shape(&p->shapes[tensor]); }

void fail(struct planner *p, const struct node *node, const char *reason) {
  const int tensor = node->outputs->data[0];
  if (p->status == kTfLiteOk)
    p->context->ReportError(p->context, "larq-rep: operator %d (%s), tensor %d '%.60s': %s.", node->index,
                            node_types[node->kind].name, tensor, tensor_name(p->context, tensor), reason);
  p->status = kTfLiteError;
}

int add_unnamed_buffer(struct planner *p, int tensor, int shaped_like, bool external, int pending) {
  const int step = p->plan->step_count - 1;
  p->plan->buffers[p->plan->buffer_count] = (struct buffer){.tensor = tensor,
                                                            .shaped_like = shaped_like,
                                                            .external = external,
                                                            .type = p->context->tensors[tensor].type,
                                                            .pending = pending,
                                                            .view_of = -1,
                                                            .first_step = step,
                                                            .last_step = step};
  return p->plan->buffer_count++;
}

int add_buffer(struct planner *p, int tensor, bool external, int pending) {
  return p->buffer_of[tensor] = add_unnamed_buffer(p, tensor, tensor, external, pending);
}

int available(struct planner *p, int tensor) {
  if (p->buffer_of[tensor] < 0) return p->producer[tensor] < 0 ? add_buffer(p, tensor, true, 0) : -1;
  return p->plan->buffers[p->buffer_of[tensor]].pending == 0 ? p->buffer_of[tensor] : -1;
}

int loadable(struct planner *p, int tensor, int *period) {
  const int source = p->source_of[tensor];
  *period = source >= 0 && !is_int8(p, source) ? channels_of(p, source) : 0;
  return available(p, source >= 0 ? source : tensor);
}

struct step *add_step(struct planner *p, enum step_kind kind, const struct node *node, int channels) {
  struct step *step = &p->plan->steps[p->plan->step_count++];
  *step = (struct step){.kind = kind, .source = -1, .target = -1, .channels = channels, .node = node};
  snprintf(step->name, sizeof step->name, "%s", node_types[node->kind].name);
  return step;
}

void touch(struct planner *p, int buffer) { p->plan->buffers[buffer].last_step = (int)(p->plan->step_count - 1); }

/* Whether input j of an operator is the first of its inputs with that tensor. */
static bool first_mention(const struct node *node, int j) {
  if (node->inputs->data[j] < 0) return false;
  for (int i = 0; i < j; i++)
    if (node->inputs->data[i] == node->inputs->data[j]) return false;
  return true;
}

static struct concatenation *make_concatenation(int inputs) {
  struct concatenation *state = allocate(1, sizeof *state);
  if (state) state->left = inputs;
  if (state) state->done = allocate((uint64_t)inputs, sizeof *state->done);
  return state;
}

bool start_planner(struct planner *p) {
  struct plan *plan = p->plan;
  const size_t tensors = plan->tensor_count;
  const uint64_t count = (uint64_t)plan->node_count;
  p->done = allocate(count, sizeof *p->done);
  p->concatenations = allocate(count, sizeof *p->concatenations);
  p->buffer_of = allocate(tensors, sizeof *p->buffer_of);
  p->source_of = allocate(tensors, sizeof *p->source_of);
  p->reader_start = allocate(tensors + 2, sizeof *p->reader_start);
  if (!p->done || !p->concatenations || !p->buffer_of || !p->source_of || !p->reader_start) return false;
  for (size_t t = 0; t < tensors; t++) p->buffer_of[t] = p->source_of[t] = -1;
  size_t steps = 0, total = 0;
  for (int i = 0; i < plan->node_count; i++) {
    const struct node *node = &p->nodes[i];
    /* Each input of a concatenation may need its own step; each operand may have copies to write out, or
     * need broadcasting. */
    steps += 2 * (size_t)node->inputs->size + 1;
    for (int j = 0; j < node->inputs->size; j++)
      if (first_mention(node, j)) {
        p->reader_start[node->inputs->data[j] + 2]++;
        total++;
      }
    if (node->kind == NODE_FROM_INT8) p->source_of[node->outputs->data[0]] = node->inputs->data[0];
    if (node->kind == NODE_CONCATENATE) {
      p->concatenations[i] = make_concatenation(node->inputs->size);
      if (!p->concatenations[i] || !p->concatenations[i]->done) return false;
    }
  }
  p->readers = allocate(total, sizeof *p->readers);
  /* Most of this room is never touched and so takes no memory. */
  plan->steps = calloc(steps, sizeof *plan->steps);
  plan->buffers = calloc(steps + total, sizeof *plan->buffers);
  if (!p->readers || !plan->steps || !plan->buffers) return false;
  for (size_t t = 2; t < tensors + 2; t++) p->reader_start[t] += p->reader_start[t - 1];
  for (int i = 0; i < plan->node_count; i++)
    for (int j = 0; j < p->nodes[i].inputs->size; j++)
      if (first_mention(&p->nodes[i], j)) p->readers[p->reader_start[p->nodes[i].inputs->data[j] + 1]++] = i;
  return true;
}

void end_planner(struct planner *p) {
  for (int i = 0; p->concatenations && i < p->plan->node_count; i++) {
    if (p->concatenations[i]) free(p->concatenations[i]->done);
    free(p->concatenations[i]);
  }
  free(p->concatenations);
  free(p->summands);
  free(p->done);
  free(p->buffer_of);
  free(p->source_of);
  free(p->readers);
  free(p->reader_start);
}
