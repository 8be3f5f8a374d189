/* Turns the nodes of a partition into steps: each is a convolution or a pass over a tensor with all that can follow it
 * before the next step needs its neighbours.
 */
#include "steps.h"

#include <math.h>
#include <stdlib.h>

#include "chain.h"
#include "convolution.h"
#include "early.h"
#include "memory.h"
#include "operators.h"
#include "plan.h"
#include "shapes.h"
#include "simplify.h"
#include "sums.h"
#include "tensors.h"
#include "views.h"

static void fail_order(struct planner *p, const struct node *node) {
  fail(p, node, "an operand of this operator is not available yet");
}

/* Starts a step that loads a buffer, and goes on with as many channels as a tensor has. */
static void start_chain(struct planner *p, struct chain *chain, const struct node *node, int tensor, int buffer,
                        int period) {
  const TfLiteTensor *t = &p->context->tensors[p->plan->buffers[buffer].tensor];
  *chain = (struct chain){.step = add_step(p, STEP_ELEMENTWISE, node, channels_of(p, tensor)), .concatenation = -1};
  chain->step->source = buffer;
  const enum opcode code = period                    ? OP_LOAD_REPEATED
                           : t->type == kTfLiteInt8  ? OP_LOAD_INT8
                           : t->type == kTfLiteBool  ? OP_LOAD_BOOL
                           : t->type == kTfLiteInt32 ? OP_LOAD_SIGNS
                                                     : OP_LOAD;
  emit(p, chain, (struct planned){.code = code, .buffer = buffer, .period = period}, -1);
}

/* Starts a step that loads a tensor. */
static bool start_load(struct planner *p, struct chain *chain, const struct node *node, int tensor) {
  int period;
  const int buffer = loadable(p, tensor, &period);
  if (buffer < 0)
    fail_order(p, node);
  else
    start_chain(p, chain, node, tensor, buffer, period);
  return buffer >= 0;
}

/* Writes out repeated channels, or floats of integers, for a reader that cannot load them itself. */
static int materialise(struct planner *p, const struct node *node, int tensor) {
  int period;
  const int buffer = loadable(p, tensor, &period);
  if (buffer < 0 || p->source_of[tensor] < 0) return buffer;
  struct chain chain;
  if (!start_load(p, &chain, node, tensor)) return -1;
  emit_store(p, &chain, OP_STORE, tensor);
  finish(p, &chain);
  return available(p, tensor);
}

/* A buffer with an operand of an operator, in the shape of the result; it repeats after *period channels. */
static int load_operand(struct planner *p, const struct node *node, int tensor, bool may_repeat, int *period) {
  const bool broadcast = is_broadcast(p->shapes, node, tensor);
  const int output = node->outputs->data[0];
  const int buffer = broadcast || !may_repeat ? materialise(p, node, tensor) : -1;
  if (!broadcast) return loadable(p, tensor, period);
  *period = 0;
  if (buffer < 0) return -1;
  struct step *step = add_step(p, STEP_BROADCAST, node, channels_of(p, output));
  step->source = buffer;
  touch(p, buffer);
  step->target = add_unnamed_buffer(p, tensor, output, false, 0);
  return step->target;
}

/* Makes a step of a single node. */
static void plan_window(struct planner *p, const struct node *node, enum step_kind kind) {
  const int input = node->inputs->data[0], output = node->outputs->data[0];
  const int source = materialise(p, node, input);
  if (source < 0) {
    fail_order(p, node);
    return;
  }
  const TfLiteTensor *x = &p->context->tensors[input], *y = &p->context->tensors[output];
  struct step *step = add_step(p, kind, node, channels_of(p, output));
  step->source = source;
  step->window = node->window;
  step->maximum = node->kind == NODE_MAX_POOL;
  touch(p, source);
  step->target = add_buffer(p, output, p->is_output[output], 0);
  touch(p, step->target);
  p->plan->buffers[source].bits = x->type == kTfLiteInt32;
  p->plan->buffers[step->target].bits = y->type == kTfLiteInt32;
  if (kind == STEP_DEQUANTIZE && y->type == kTfLiteInt8) {
    const double one = floor(1.0 / (double)y->params.scale + 0.5);
    step->low = (int8_t)fmax(-128, fmin(127, y->params.zero_point - one));
    step->high = (int8_t)fmax(-128, fmin(127, y->params.zero_point + one));
  }
}

/* Adds a convolution to the sums of a step. */
static void add_convolution(struct planner *p, struct chain *chain, const struct node *node, enum opcode code) {
  struct convolution **last = &chain->step->convolution;
  while (*last) last = &(*last)->next;
  const int source = available(p, node->inputs->data[0]);
  if (source < 0) {
    fail_order(p, node);
    return;
  }
  *last = make_convolution(p->context, node, p->options->kernels);
  if (!*last) {
    fail(p, node, "no memory for its constants");
    return;
  }
  (*last)->source = source;
  p->plan->buffers[source].bits = true;
  touch(p, source);
  emit(p, chain, (struct planned){.code = code, .buffer = -1}, -1);
}

static bool start_convolution(struct planner *p, struct chain *chain, const struct node *node) {
  const int filters = p->context->tensors[node->inputs->data[1]].dims->data[0];
  *chain = (struct chain){.step = add_step(p, STEP_CONVOLUTION, node, filters), .concatenation = -1};
  add_convolution(p, chain, node, OP_ACCUMULATED);
  if (p->status != kTfLiteOk) return false;
  chain->step->source = chain->step->convolution->source;
  return true;
}

static void plan_convolution(struct planner *p, const struct node *node) {
  const int output = node->outputs->data[0];
  struct chain chain;
  if (!start_convolution(p, &chain, node)) return;
  if (p->context->tensors[output].type == kTfLiteInt32) {
    emit_store(p, &chain, OP_STORE_SIGNS, output);
    finish(p, &chain);
  } else if (p->context->tensors[output].type == kTfLiteInt8) {
    emit_store(p, &chain, OP_STORE_INT8, output);
    finish(p, &chain);
  } else {
    follow(p, &chain, output);
  }
}

/* Makes a step of a sum of convolutions; of each convolution, if what they are added to does not exist yet. */
static void plan_sum(struct planner *p, int addition) {
  const struct sum sum = sum_of(p, addition);
  int period = 0;
  const int loaded = sum.loaded < 0 ? -1 : loadable(p, sum.loaded, &period);
  hold_sum(p, &sum, false);
  for (int i = 0; i < sum.count; i++) p->done[sum.convolutions[i]] = true;
  if (sum.loaded >= 0 && loaded < 0) {
    for (int i = 0; i < sum.count && p->status == kTfLiteOk; i++) plan_convolution(p, &p->nodes[sum.convolutions[i]]);
    return;
  }
  struct chain chain;
  if (!start_convolution(p, &chain, &p->nodes[sum.convolutions[0]])) return;
  for (int i = sum.additions[0] < 0; i < sum.count && p->status == kTfLiteOk; i++) {
    const struct node *node = &p->nodes[sum.additions[i]];
    p->done[sum.additions[i]] = true;
    if (i == 0) {
      append_name(chain.step, node->kind);
      apply(p, &chain, node, p->summands[sum.additions[i]].side, loaded, period);
      continue;
    }
    append_name(chain.step, NODE_BCONV);
    append_name(chain.step, node->kind);
    add_convolution(p, &chain, &p->nodes[sum.convolutions[i]], OP_ADD_ACCUMULATED);
    emit_clip(p, &chain, node->activation);
  }
  if (p->status == kTfLiteOk) follow(p, &chain, p->nodes[addition].outputs->data[0]);
}

/* Makes a step that begins with this node, because no earlier step could go on through it. */
static void plan_elementwise(struct planner *p, const struct node *node) {
  /* The first operand that is not a constant is the value; a repeated one is better loaded as an addend. */
  const int side = is_constant(p->context, node->inputs->data[0]) || !may_be_value(node, 0);
  const int value = node->inputs->data[side];
  const int operand = node->inputs->size > 1 ? other_operand(node, side) : value;
  int period, period_of_operand = 0, buffer_of_operand = -1;
  const bool loaded = node->inputs->size > 1 && !is_constant(p->context, operand);
  if (loaded) buffer_of_operand = load_operand(p, node, operand, node->kind == NODE_ADD, &period_of_operand);
  const int buffer = load_operand(p, node, value, true, &period);
  if (buffer < 0 || (loaded && buffer_of_operand < 0)) {
    fail_order(p, node);
    return;
  }
  struct chain chain;
  start_chain(p, &chain, node, node->outputs->data[0], buffer, period);
  apply(p, &chain, node, side, buffer_of_operand, period_of_operand);
  follow(p, &chain, node->outputs->data[0]);
}

/* Copies of whole units need not be written: they are an index where they are loaded. */
static void plan_repeat(struct planner *p, const struct node *node) {
  const int input = node->inputs->data[0], output = node->outputs->data[0];
  if (p->source_of[input] >= 0 && is_int8(p, p->source_of[input]) && materialise(p, node, input) < 0) {
    fail_order(p, node);
    return;
  }
  const int root = p->source_of[input] >= 0 ? p->source_of[input] : input;
  if (channels_of(p, root) % UNIT) {
    plan_window(p, node, STEP_REPEAT);
    return;
  }
  p->source_of[output] = root;
  if (p->is_output[output]) materialise(p, node, output);
}

/* Goes on from integers, as the floats that they stand for: their signs, DEQUANTIZE and what follows. */
static void plan_from_int8(struct planner *p, int position) {
  const struct node *node = &p->nodes[position];
  struct chain chain;
  if (!start_load(p, &chain, node, node->inputs->data[0])) return;
  p->done[position] = false;
  chain.step->name[0] = 0;
  follow(p, &chain, node->inputs->data[0]);
  if (chain.step->count == 1) p->plan->step_count--; /* the readers load the integers themselves */
}

static void plan_signs(struct planner *p, const struct node *node) {
  const int source = available(p, node->inputs->data[0]), output = node->outputs->data[0];
  if (source < 0) {
    fail_order(p, node);
    return;
  }
  struct chain chain;
  p->plan->buffers[source].bits = true;
  start_chain(p, &chain, node, output, source, 0);
  follow(p, &chain, output);
}

static void plan_node(struct planner *p, int position) {
  const struct node *node = &p->nodes[position];
  struct chain chain;
  p->done[position] = true;
  switch (node->kind) {
    case NODE_BCONV:
      if (p->summands[position].sum >= 0)
        plan_sum(p, p->summands[position].sum);
      else
        plan_convolution(p, node);
      return;
    case NODE_FROM_INT8:
      plan_from_int8(p, position);
      return;
    case NODE_QUANTIZE:
    case NODE_TO_INT8:
      if (is_int8(p, node->inputs->data[0])) {
        plan_from_int8(p, position);
      } else if (start_load(p, &chain, node, node->inputs->data[0])) {
        emit_store(p, &chain, node->kind == NODE_QUANTIZE ? OP_STORE_SIGNS : OP_STORE_QUANTIZED,
                   node->outputs->data[0]);
        finish(p, &chain);
      }
      return;
    case NODE_DEQUANTIZE:
      if (p->context->tensors[node->outputs->data[0]].type == kTfLiteFloat32)
        plan_signs(p, node);
      else
        plan_window(p, node, STEP_DEQUANTIZE);
      return;
    case NODE_REPEAT:
      plan_repeat(p, node);
      return;
    case NODE_CONCATENATE:
      p->done[position] = false;
      for (int i = 0; i < node->inputs->size && p->status == kTfLiteOk; i++)
        if (!p->concatenations[position]->done[i] && start_load(p, &chain, node, node->inputs->data[i]))
          follow_concatenation(p, &chain, position, i);
      return;
    default:
      if (node_types[node->kind].step != STEP_ELEMENTWISE)
        plan_window(p, node, node_types[node->kind].step);
      else
        plan_elementwise(p, node);
      return;
  }
}

static void choose_run(struct step *step, const struct kernels *kernels) {
  struct instruction program[MAX_INSTRUCTIONS];
  for (int i = 0; i < step->count; i++) program[i].code = step->program[i].code;
  if (step->convolution) program[0].code = code_of_results(step->convolution);
  for (int first = 0, end; first < step->count; first = end) {
    for (end = first + 1; end < step->count && program[end].code != OP_LOAD;) end++;
    step->parts[step->part_count++] =
        (struct part){first, end - first, find_run(kernels, &program[first], end - first)};
  }
}

TfLiteStatus make_steps(TfLiteContext *context, struct plan *plan, const struct options *options) {
  free_steps(plan);
  struct planner p = {.context = context,
                      .options = options,
                      .nodes = plan->nodes,
                      .producer = plan->producer,
                      .is_output = plan->is_output,
                      .shapes = plan->shapes,
                      .plan = plan,
                      .status = kTfLiteOk};
  if (!start_planner(&p) || !find_sums(&p)) {
    context->ReportError(context, "larq-rep: no memory for the steps of %d operators.", plan->node_count);
    p.status = kTfLiteError;
  }
  for (int i = 0; i < plan->node_count && p.status == kTfLiteOk; i++)
    if (!p.done[i] && (!p.summands[i].held || p.summands[i].sum >= 0)) plan_node(&p, i);
  if (p.status == kTfLiteOk) make_views(plan);
  if (p.status == kTfLiteOk && !(simplify_programs(plan) && compute_early(plan))) {
    context->ReportError(context, "larq-rep: no memory for the constants of %d steps.", plan->step_count);
    p.status = kTfLiteError;
  }
  for (int s = 0; s < plan->step_count && p.status == kTfLiteOk; s++) choose_run(&plan->steps[s], options->kernels);
  if (p.status != kTfLiteOk) free_steps(plan);
  end_planner(&p);
  return p.status;
}
