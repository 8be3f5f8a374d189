/* Turns the nodes of a partition into steps, each a convolution or a pass over a tensor with all that can follow it
 * before the next step needs its neighbours.
 *
 * A step keeps a value in registers and follows the graph from node to node as long as the other operands are
 * constants or exist already. It stores a value only where somebody else reads it. Copies of TILE are an index.
 * CONCATENATION is followed too: each of its inputs' steps goes on in its own slice of the channels.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "delegate.h"

struct concatenation {
  bool emitted;    /* one of its inputs has been followed through it */
  int left;        /* inputs still to be followed */
  bool *done;      /* of each input: whether it has been followed */
  bool signs;      /* all inputs but the last are whole units, so that packed signs can be written in slices */
  int count;
  struct planned tail[MAX_INSTRUCTIONS];
  int constants[MAX_INSTRUCTIONS];
};

struct planner {
  TfLiteContext *context;
  const struct options *options;
  const struct operator * ops;
  const int *producer;
  const bool *is_output;
  const struct shape *shapes;
  bool *done;
  struct concatenation **concatenations;
  int *buffer_of;   /* of each tensor */
  int *tiled_from;  /* tensor that this one repeats, or -1 */
  int *readers, *reader_start; /* of each tensor: positions in ops */
  struct plan *plan;
  TfLiteStatus status;
};

/* A step in the making. */
struct chain {
  struct step *step;
  int offset;          /* channel of the current value within the concatenation it is part of */
  int concatenation;   /* position in ops, or -1 */
  int tail;            /* first instruction behind the concatenation */
  int constants[MAX_INSTRUCTIONS];
};

static const float infinity = INFINITY;

static int channels_of(const struct planner *p, int tensor) { return channels_of_shape(&p->shapes[tensor]); }

static void fail(struct planner *p, const struct operator * op, const char *reason) {
  const int tensor = op->outputs->data[0];
  if (p->status == kTfLiteOk)
    p->context->ReportError(p->context, "larq-rep: operator %d (%s), tensor %d '%.60s': %s.", op->node,
                            kind_name(op->kind), tensor, tensor_name(p->context, tensor), reason);
  p->status = kTfLiteError;
}

static int add_unnamed_buffer(struct planner *p, int tensor, int shaped_like, bool external, int pending) {
  const int step = p->plan->step_count - 1;
  p->plan->buffers[p->plan->buffer_count] = (struct buffer){
      .tensor = tensor, .shaped_like = shaped_like, .external = external, .type = p->context->tensors[tensor].type,
      .pending = pending, .view_of = -1, .first = step, .last = step};
  return p->plan->buffer_count++;
}

static int add_buffer(struct planner *p, int tensor, bool external, int pending) {
  return p->buffer_of[tensor] = add_unnamed_buffer(p, tensor, tensor, external, pending);
}

/* The buffer of a tensor whose value is complete, else -1. */
static int available(struct planner *p, int tensor) {
  if (p->buffer_of[tensor] < 0) return p->producer[tensor] < 0 ? add_buffer(p, tensor, true, 0) : -1;
  return p->plan->buffers[p->buffer_of[tensor]].pending == 0 ? p->buffer_of[tensor] : -1;
}

/* Where a tensor can be loaded from, repeated after *period channels (0: not repeated); -1 if nowhere yet. */
static int loadable(struct planner *p, int tensor, int *period) {
  const int source = p->tiled_from[tensor];
  *period = source >= 0 ? channels_of(p, source) : 0;
  return available(p, source >= 0 ? source : tensor);
}

static struct step *add_step(struct planner *p, enum step_kind kind, const struct operator * op, int channels) {
  struct step *step = &p->plan->steps[p->plan->step_count++];
  *step = (struct step){.kind = kind, .source = -1, .target = -1, .channels = channels, .op = op};
  snprintf(step->name, sizeof step->name, "%s", kind_name(op->kind));
  return step;
}

static void touch(struct planner *p, int buffer) {
  p->plan->buffers[buffer].last = (int)(p->plan->step_count - 1);
}

static float *slice_constant(struct planner *p, int tensor, int offset, int channels) {
  const TfLiteTensor *t = &p->context->tensors[tensor];
  float *constant = allocate((size_t)round_up(channels, UNIT), sizeof *constant);
  const bool scalar = t->dims->size == 0 || last_dimension(t) == 1; /* its bytes may be more than the shape says */
  for (int c = 0; constant && c < channels; c++) constant[c] = t->data.f[scalar ? 0 : offset + c];
  return constant;
}

static void emit(struct planner *p, struct chain *chain, struct planned instruction, int constant) {
  struct step *step = chain->step;
  if (step->count == MAX_INSTRUCTIONS) {
    fail(p, step->op, "too many operators in a row");
    return;
  }
  instruction.constant = NULL;
  instruction.tile = NULL;
  if (constant >= 0) {
    instruction.constant = slice_constant(p, constant, chain->offset, step->channels);
    if (!instruction.constant) fail(p, step->op, "no memory for its constants");
  }
  if (instruction.period) {
    const int units = round_up(step->channels, UNIT) / UNIT;
    instruction.tile = allocate((size_t)units, sizeof(int32_t));
    if (!instruction.tile) fail(p, step->op, "no memory for its constants");
    for (int u = 0; instruction.tile && u < units; u++)
      instruction.tile[u] = (instruction.offset + u * UNIT) % instruction.period;
  }
  if (instruction.buffer >= 0) touch(p, instruction.buffer);
  chain->constants[step->count] = constant;
  step->program[step->count++] = instruction;
}

static void emit_loaded(struct planner *p, struct chain *chain, enum opcode code, int buffer, int period) {
  emit(p, chain, (struct planned){.code = code, .buffer = buffer, .offset = chain->offset, .period = period}, -1);
}

static void emit_clip(struct planner *p, struct chain *chain, TfLiteFusedActivation activation) {
  if (activation == kTfLiteActNone) return;
  const float low = activation == kTfLiteActReluN1To1 ? -1.0f : 0.0f;
  const float high = activation == kTfLiteActRelu ? infinity : activation == kTfLiteActRelu6 ? 6.0f : 1.0f;
  emit(p, chain, (struct planned){.code = OP_CLIP, .low = low, .high = high, .buffer = -1}, -1);
}

static void emit_store(struct planner *p, struct chain *chain, enum opcode code, int tensor) {
  const int parts = chain->concatenation < 0 ? 1 : p->ops[chain->concatenation].inputs->size;
  const int buffer = add_buffer(p, tensor, p->is_output[tensor], parts);
  p->plan->buffers[buffer].bits = code == OP_STORE_SIGNS;
  emit(p, chain, (struct planned){.code = code, .buffer = buffer, .offset = chain->offset}, -1);
}

static bool arithmetic(enum kind kind) { return kind == ADD || kind == SUBTRACT || kind == MULTIPLY; }

/* The operand beside the value at position `side`. */
static int other(const struct operator * op, int side) { return op->inputs->data[1 - side]; }

static int side_of(const struct operator * op, int tensor) { return op->inputs->data[0] == tensor ? 0 : 1; }

/* Whether an operand has to be broadcast to the shape of the operator's result. */
static bool is_broadcast(const struct shape *shapes, const struct operator * op, int tensor) {
  return takes_numbers_one_by_one(op->kind) && !equal_shapes(&shapes[tensor], &shapes[op->outputs->data[0]]);
}

/* Whether the chain whose value is `tensor` can go on through this operator now. */
static bool can_apply(struct planner *p, const struct chain *chain, const struct operator * op, int tensor) {
  int period;
  if (!takes_numbers_one_by_one(op->kind) || chain->step->count + 6 > MAX_INSTRUCTIONS ||
      is_broadcast(p->shapes, op, tensor))
    return false;
  if (!arithmetic(op->kind)) return true;
  const int operand = other(op, side_of(op, tensor));
  if (operand == tensor) return false;
  if (is_constant(p->context, operand)) return true;
  if (is_broadcast(p->shapes, op, operand) || loadable(p, operand, &period) < 0) return false;
  return !period || (op->kind == ADD && (chain->concatenation < 0 || p->concatenations[chain->concatenation]->signs));
}

/* Goes on through an operator whose operand beside the value, if it is no constant, is loaded from a buffer. */
static void apply(struct planner *p, struct chain *chain, const struct operator * op, int side, int buffer,
                  int period) {
  switch (op->kind) {
    case PRELU:
      emit(p, chain, (struct planned){.code = OP_PRELU, .buffer = -1}, other(op, 0));
      return;
    case RELU:
      emit_clip(p, chain, kTfLiteActRelu);
      return;
    case RELU6:
      emit_clip(p, chain, kTfLiteActRelu6);
      return;
    case RELU_N1_TO_1:
      emit_clip(p, chain, kTfLiteActReluN1To1);
      return;
    default:
      break;
  }
  const int operand = other(op, side);
  const enum opcode of_constant = op->kind == ADD ? OP_ADD : op->kind == MULTIPLY ? OP_MULTIPLY
                                  : side == 0     ? OP_SUBTRACT
                                                  : OP_SUBTRACT_FROM;
  const enum opcode of_loaded = op->kind == ADD ? OP_ADD_LOADED : op->kind == MULTIPLY ? OP_MULTIPLY_LOADED
                                : side == 0     ? OP_SUBTRACT_LOADED
                                                : OP_SUBTRACT_FROM_LOADED;
  if (is_constant(p->context, operand)) {
    emit(p, chain, (struct planned){.code = of_constant, .buffer = -1}, operand);
  } else {
    emit_loaded(p, chain, period ? OP_ADD_LOADED_TILED : of_loaded, buffer, period);
  }
  emit_clip(p, chain, op->activation);
}

static void append_name(struct step *step, enum kind kind) {
  const size_t used = strlen(step->name);
  snprintf(step->name + used, sizeof step->name - used, "+%s", kind_name(kind));
}

static int input_channel(const struct planner *p, const struct operator * op, int input) {
  int channel = 0;
  for (int i = 0; i < input; i++) channel += channels_of(p, op->inputs->data[i]);
  return channel;
}

static int next_input(const struct planner *p, int concatenation, int tensor) {
  const struct operator * op = &p->ops[concatenation];
  for (int i = 0; i < op->inputs->size; i++)
    if (op->inputs->data[i] == tensor && !p->concatenations[concatenation]->done[i]) return i;
  return -1;
}

static void finish(struct planner *p, struct chain *chain) {
  const struct step *step = chain->step;
  for (int i = 0; i < step->count; i++)
    if (is_store(step->program[i].code)) p->plan->buffers[step->program[i].buffer].pending--;
}

static void follow(struct planner *p, struct chain *chain, int tensor);

/* Goes on behind a concatenation: the first of its inputs decides how, the others do the same in their slices. */
static void follow_concatenation(struct planner *p, struct chain *chain, int position, int input) {
  const struct operator * op = &p->ops[position];
  struct concatenation *state = p->concatenations[position];
  chain->concatenation = position;
  chain->offset = input_channel(p, op, input);
  state->done[input] = true;
  append_name(chain->step, CONCATENATE);
  if (--state->left == 0) p->done[position] = true;
  if (state->emitted) {
    for (int i = 0; i < state->count; i++) {
      struct planned instruction = state->tail[i];
      if (instruction.buffer >= 0) instruction.offset = chain->offset;
      emit(p, chain, instruction, state->constants[i]);
    }
    finish(p, chain);
    return;
  }
  state->emitted = true;
  state->signs = true;
  for (int i = 0; i + 1 < op->inputs->size; i++)
    state->signs = state->signs && channels_of(p, op->inputs->data[i]) % UNIT == 0;
  chain->tail = chain->step->count;
  follow(p, chain, op->outputs->data[0]);
  for (int i = chain->tail; i < chain->step->count; i++) {
    state->tail[state->count] = chain->step->program[i];
    state->constants[state->count++] = chain->constants[i];
  }
}

/* Follows the graph from a value that the chain holds. */
static void follow(struct planner *p, struct chain *chain, int tensor) {
  while (p->status == kTfLiteOk) {
    const int *readers = p->readers + p->reader_start[tensor];
    const int count = p->reader_start[tensor + 1] - p->reader_start[tensor];
    struct step *step = chain->step;
    const bool signs = chain->concatenation < 0 || p->concatenations[chain->concatenation]->signs;
    int next = -1, left = 0;
    for (int i = 0; i < count; i++) {
      const struct operator * op = &p->ops[readers[i]];
      if (p->done[readers[i]]) continue;
      if (op->kind == QUANTIZE && signs && step->count + 4 < MAX_INSTRUCTIONS) {
        emit_store(p, chain, OP_STORE_SIGNS, op->outputs->data[0]);
        append_name(step, QUANTIZE);
        p->done[readers[i]] = true;
        continue;
      }
      left++;
      if (next >= 0) continue;
      if (can_apply(p, chain, op, tensor) ||
          (op->kind == CONCATENATE && chain->concatenation < 0 && next_input(p, readers[i], tensor) >= 0 &&
           (!p->concatenations[readers[i]]->emitted ||
            step->count + p->concatenations[readers[i]]->count + 2 < MAX_INSTRUCTIONS)) ||
          (op->kind == TILE_CHANNELS && step->kind == STEP_CONVOLUTION && step->count == 1 && count == 1 &&
           chain->concatenation < 0 && !p->is_output[tensor]))
        next = readers[i];
    }
    if (p->is_output[tensor] || left > (next >= 0)) {
      if (p->buffer_of[tensor] < 0)
        emit_store(p, chain, p->context->tensors[tensor].type == kTfLiteInt8 ? OP_STORE_INT8 : OP_STORE, tensor);
    }
    if (next < 0) break;
    const struct operator * op = &p->ops[next];
    if (op->kind == CONCATENATE) {
      follow_concatenation(p, chain, next, next_input(p, next, tensor));
      return;
    }
    append_name(step, op->kind);
    if (op->kind == TILE_CHANNELS) {
      step->channels = channels_of(p, op->outputs->data[0]);
      const int units = round_up(step->channels, UNIT) / UNIT;
      free(step->copies); /* of a TILE before this one */
      step->copies = allocate((size_t)units, sizeof *step->copies);
      if (!step->copies || !repeat_results(step->convolution, step->channels)) fail(p, op, "no memory for its copies");
      for (int u = 0; step->copies && u < units; u++) step->copies[u] = u * UNIT % step->convolution->period;
    } else {
      const int side = side_of(op, tensor), operand = arithmetic(op->kind) ? other(op, side) : tensor;
      int period = 0;
      const int buffer = is_constant(p->context, operand) || operand == tensor ? -1 : loadable(p, operand, &period);
      apply(p, chain, op, side, buffer, period);
    }
    p->done[next] = true;
    tensor = op->outputs->data[0];
  }
  finish(p, chain);
}

static void fail_order(struct planner *p, const struct operator * op) { fail(p, op, "an operand is computed too late"); }

/* Starts a step that loads a buffer, and goes on with as many channels as a tensor has. */
static void start_chain(struct planner *p, struct chain *chain, const struct operator * op, int tensor, int buffer,
                        int period) {
  const TfLiteTensor *t = &p->context->tensors[p->plan->buffers[buffer].tensor];
  *chain = (struct chain){.step = add_step(p, STEP_ELEMENTWISE, op, channels_of(p, tensor)), .concatenation = -1};
  chain->step->source = buffer;
  const enum opcode code = period ? OP_LOAD_TILED : t->type == kTfLiteInt8 ? OP_LOAD_INT8
                           : t->type == kTfLiteBool                        ? OP_LOAD_BOOL
                                                                           : OP_LOAD;
  emit(p, chain,
       (struct planned){.code = code, .buffer = buffer, .period = period, .low = (float)t->params.zero_point}, -1);
}

/* Starts a step that loads a tensor. */
static bool start_load(struct planner *p, struct chain *chain, const struct operator * op, int tensor) {
  int period;
  const int buffer = loadable(p, tensor, &period);
  if (buffer < 0)
    fail_order(p, op);
  else
    start_chain(p, chain, op, tensor, buffer, period);
  return buffer >= 0;
}

/* Writes the copies of a tile out after all, for a reader that cannot repeat them by itself. */
static int materialise(struct planner *p, const struct operator * op, int tensor) {
  int period;
  const int buffer = loadable(p, tensor, &period);
  if (buffer < 0 || !period) return buffer;
  struct chain chain;
  if (!start_load(p, &chain, op, tensor)) return -1;
  p->tiled_from[tensor] = -1;
  emit_store(p, &chain, OP_STORE, tensor);
  finish(p, &chain);
  return available(p, tensor);
}

/* A buffer with the operand of an operator, in the shape of its result; repeated after *period channels. */
static int load_operand(struct planner *p, const struct operator * op, int tensor, bool may_repeat, int *period) {
  const bool broadcast = is_broadcast(p->shapes, op, tensor);
  const int output = op->outputs->data[0];
  const int buffer = broadcast || !may_repeat ? materialise(p, op, tensor) : -1;
  if (!broadcast) return loadable(p, tensor, period);
  *period = 0;
  if (buffer < 0) return -1;
  struct step *step = add_step(p, STEP_BROADCAST, op, channels_of(p, output));
  step->source = buffer;
  touch(p, buffer);
  step->target = add_unnamed_buffer(p, tensor, output, false, 0);
  return step->target;
}

static void plan_window(struct planner *p, const struct operator * op, enum step_kind kind) {
  const int input = op->inputs->data[0], output = op->outputs->data[0];
  const int source = materialise(p, op, input);
  if (source < 0) {
    fail_order(p, op);
    return;
  }
  struct step *step = add_step(p, kind, op, channels_of(p, output));
  step->source = source;
  step->window = op->window;
  step->maximum = op->kind == MAX_POOL;
  touch(p, source);
  step->target = add_buffer(p, output, p->is_output[output], 0);
  touch(p, step->target);
  p->plan->buffers[source].bits = kind == STEP_BINARY_MAX_POOL || kind == STEP_DEQUANTIZE;
  p->plan->buffers[step->target].bits = kind == STEP_BINARY_MAX_POOL;
  const TfLiteQuantizationParams *q = &p->context->tensors[output].params;
  if (kind == STEP_DEQUANTIZE && p->context->tensors[output].type == kTfLiteInt8) {
    const double one = floor(1.0 / (double)q->scale + 0.5);
    step->low = (int8_t)fmax(-128, fmin(127, q->zero_point - one));
    step->high = (int8_t)fmax(-128, fmin(127, q->zero_point + one));
  }
}

static void plan_operator(struct planner *p, int position) {
  const struct operator * op = &p->ops[position];
  struct chain chain;
  p->done[position] = true;
  switch (op->kind) {
    case BCONV: {
      const int output = op->outputs->data[0], source = available(p, op->inputs->data[0]);
      if (source < 0) {
        fail_order(p, op);
        return;
      }
      const int filters = p->context->tensors[op->inputs->data[1]].dims->data[0];
      chain = (struct chain){.step = add_step(p, STEP_CONVOLUTION, op, filters), .concatenation = -1};
      chain.step->source = source;
      p->plan->buffers[source].bits = true;
      touch(p, source);
      chain.step->convolution = make_convolution(p->context, op, p->options->kernels);
      if (!chain.step->convolution) {
        fail(p, op, "no memory for its constants");
        return;
      }
      emit(p, &chain, (struct planned){.code = OP_ACCUMULATED, .buffer = -1}, -1);
      if (p->context->tensors[output].type == kTfLiteInt32) {
        emit_store(p, &chain, OP_STORE_SIGNS, output);
        finish(p, &chain);
      } else if (p->context->tensors[output].type == kTfLiteInt8) {
        emit_store(p, &chain, OP_STORE_INT8, output);
        finish(p, &chain);
      } else {
        follow(p, &chain, output);
      }
      return;
    }
    case QUANTIZE:
      if (start_load(p, &chain, op, op->inputs->data[0])) {
        emit_store(p, &chain, OP_STORE_SIGNS, op->outputs->data[0]);
        finish(p, &chain);
      }
      return;
    case DEQUANTIZE:
      plan_window(p, op, STEP_DEQUANTIZE);
      return;
    case BMAXPOOL:
      plan_window(p, op, STEP_BINARY_MAX_POOL);
      return;
    case AVERAGE_POOL:
    case MAX_POOL:
      plan_window(p, op, STEP_POOL);
      return;
    case TILE_CHANNELS: {
      const int input = op->inputs->data[0], output = op->outputs->data[0];
      const int root = p->tiled_from[input] >= 0 ? p->tiled_from[input] : input;
      if (channels_of(p, root) % UNIT) {
        plan_window(p, op, STEP_TILE);
        return;
      }
      p->tiled_from[output] = root;
      if (p->is_output[output]) materialise(p, op, output);
      return;
    }
    case CONCATENATE:
      p->done[position] = false;
      for (int i = 0; i < op->inputs->size && p->status == kTfLiteOk; i++)
        if (!p->concatenations[position]->done[i] && start_load(p, &chain, op, op->inputs->data[i]))
          follow_concatenation(p, &chain, position, i);
      return;
    default: {
      /* The first operand that is no constant is the value, and repeated ones are better loaded as an addend. */
      const int side = is_constant(p->context, op->inputs->data[0]) ? 1 : 0, value = op->inputs->data[side];
      const int operand = op->inputs->size > 1 ? other(op, side) : value;
      int period, period_of_operand = 0, buffer_of_operand = -1;
      const bool loaded = op->inputs->size > 1 && !is_constant(p->context, operand);
      if (loaded) buffer_of_operand = load_operand(p, op, operand, op->kind == ADD, &period_of_operand);
      const int buffer = load_operand(p, op, value, true, &period);
      if (buffer < 0 || (loaded && buffer_of_operand < 0)) {
        fail_order(p, op);
        return;
      }
      start_chain(p, &chain, op, op->outputs->data[0], buffer, period);
      apply(p, &chain, op, side, buffer_of_operand, period_of_operand);
      follow(p, &chain, op->outputs->data[0]);
      return;
    }
  }
}

/* Whether input j of an operator is the first of its inputs with that tensor. */
static bool first_mention(const struct operator * op, int j) {
  if (op->inputs->data[j] < 0) return false;
  for (int i = 0; i < j; i++)
    if (op->inputs->data[i] == op->inputs->data[j]) return false;
  return true;
}

static struct concatenation *make_concatenation(int inputs) {
  struct concatenation *state = allocate(1, sizeof *state);
  if (state) state->left = inputs;
  if (state) state->done = allocate((uint64_t)inputs, sizeof *state->done);
  return state;
}

/* Finds who reads each tensor, and makes room for all steps and buffers that there can be. */
static bool start_plan(struct planner *p) {
  struct plan *plan = p->plan;
  const size_t tensors = plan->tensor_count;
  const uint64_t count = (uint64_t)plan->op_count;
  p->done = allocate(count, sizeof *p->done);
  p->concatenations = allocate(count, sizeof *p->concatenations);
  p->buffer_of = allocate(tensors, sizeof *p->buffer_of);
  p->tiled_from = allocate(tensors, sizeof *p->tiled_from);
  p->reader_start = allocate(tensors + 2, sizeof *p->reader_start);
  if (!p->done || !p->concatenations || !p->buffer_of || !p->tiled_from || !p->reader_start) return false;
  for (size_t t = 0; t < tensors; t++) p->buffer_of[t] = p->tiled_from[t] = -1;
  size_t steps = 0, total = 0;
  for (int i = 0; i < plan->op_count; i++) {
    const struct operator * op = &p->ops[i];
    /* Each input of a concatenation may take a step of its own, each operand be a tile to be written out, or have to
     * be broadcast. */
    steps += 2 * (size_t)op->inputs->size + 1;
    for (int j = 0; j < op->inputs->size; j++)
      if (first_mention(op, j)) {
        p->reader_start[op->inputs->data[j] + 2]++;
        total++;
      }
    if (op->kind == CONCATENATE) {
      p->concatenations[i] = make_concatenation(op->inputs->size);
      if (!p->concatenations[i] || !p->concatenations[i]->done) return false;
    }
  }
  p->readers = allocate(total, sizeof *p->readers);
  /* Most of this room is never touched, and then takes no memory. */
  plan->steps = calloc(steps, sizeof *plan->steps);
  plan->buffers = calloc(steps + total, sizeof *plan->buffers);
  if (!p->readers || !plan->steps || !plan->buffers) return false;
  for (size_t t = 2; t < tensors + 2; t++) p->reader_start[t] += p->reader_start[t - 1];
  for (int i = 0; i < plan->op_count; i++)
    for (int j = 0; j < p->ops[i].inputs->size; j++)
      if (first_mention(&p->ops[i], j)) p->readers[p->reader_start[p->ops[i].inputs->data[j] + 1]++] = i;
  return true;
}

/* Where a step copies a tensor into a concatenation, the tensor is better made there in the first place. */
static void make_views(struct plan *plan) {
  for (int s = 0; s < plan->step_count; s++) {
    struct step *step = &plan->steps[s];
    if (step->kind != STEP_ELEMENTWISE || step->count < 2 || step->program[0].code != OP_LOAD ||
        step->program[1].code != OP_STORE)
      continue;
    struct buffer *part = &plan->buffers[step->program[0].buffer];
    struct buffer *whole = &plan->buffers[step->program[1].buffer];
    if (part->external || part->view_of >= 0) continue;
    part->view_of = step->program[1].buffer;
    part->view_channel = step->program[1].offset;
    if (part->first < whole->first) whole->first = part->first;
    if (part->last > whole->last) whole->last = part->last;
    memmove(&step->program[1], &step->program[2], (size_t)(step->count - 2) * sizeof *step->program);
    step->count--;
  }
  /* A view of a view lives as long as what contains both. */
  for (int i = 0; i < plan->buffer_count; i++)
    for (int j = i; plan->buffers[j].view_of >= 0; j = plan->buffers[j].view_of) {
      struct buffer *whole = &plan->buffers[plan->buffers[j].view_of];
      if (plan->buffers[i].first < whole->first) whole->first = plan->buffers[i].first;
      if (plan->buffers[i].last > whole->last) whole->last = plan->buffers[i].last;
    }
}

TfLiteStatus make_steps(TfLiteContext *context, struct plan *plan, const struct options *options) {
  free_steps(plan);
  struct planner p = {.context = context, .options = options, .ops = plan->ops, .producer = plan->producer,
                      .is_output = plan->is_output, .shapes = plan->shapes, .plan = plan, .status = kTfLiteOk};
  if (!start_plan(&p)) {
    context->ReportError(context, "larq-rep: no memory for the steps of %d operators.", plan->op_count);
    p.status = kTfLiteError;
  }
  for (int i = 0; i < plan->op_count && p.status == kTfLiteOk; i++)
    if (!p.done[i]) plan_operator(&p, i);
  if (p.status == kTfLiteOk)
    make_views(plan);
  else
    free_steps(plan);
  for (int i = 0; p.concatenations && i < plan->op_count; i++) {
    if (p.concatenations[i]) free(p.concatenations[i]->done);
    free(p.concatenations[i]);
  }
  free(p.concatenations);
  free(p.done);
  free(p.buffer_of);
  free(p.tiled_from);
  free(p.readers);
  free(p.reader_start);
  return p.status;
}

bool same_steps(const struct plan *plan, const struct shape *shapes) {
  if (!plan->steps) return false;
  for (int i = 0; i < plan->op_count; i++) {
    const struct operator * op = &plan->ops[i];
    const int output = op->outputs->data[0];
    if (channels_of_shape(&shapes[output]) != channels_of_shape(&plan->shapes[output])) return false;
    for (int j = 0; j < op->inputs->size; j++) {
      const int t = op->inputs->data[j];
      if (t >= 0 && (channels_of_shape(&shapes[t]) != channels_of_shape(&plan->shapes[t]) ||
                     is_broadcast(shapes, op, t) != is_broadcast(plan->shapes, op, t)))
        return false;
    }
  }
  return true;
}

struct plan *make_plan(TfLiteContext *context, const TfLiteDelegateParams *params) {
  const TfLiteIntArray *nodes = params->nodes_to_replace;
  struct plan *plan = calloc(1, sizeof *plan);
  if (plan) {
    plan->tensor_count = context->tensors_size;
    plan->ops = allocate((uint64_t)nodes->size, sizeof *plan->ops);
    plan->producer = allocate(plan->tensor_count, sizeof *plan->producer);
    plan->is_output = allocate(plan->tensor_count, sizeof *plan->is_output);
  }
  if (!plan || !plan->ops || !plan->producer || !plan->is_output) {
    context->ReportError(context, "larq-rep: no memory for a part of the graph of %d operators.", nodes->size);
    free_plan(plan);
    return NULL;
  }
  for (size_t t = 0; t < plan->tensor_count; t++) plan->producer[t] = -1;
  for (int i = 0; i < params->output_tensors->size; i++) plan->is_output[params->output_tensors->data[i]] = true;
  for (; plan->op_count < nodes->size; plan->op_count++) {
    struct operator * op = &plan->ops[plan->op_count];
    const bool read = read_operator(context, nodes->data[plan->op_count], op) == kTfLiteOk;
    if (read && op->kind == NOT_OURS)
      context->ReportError(context, "larq-rep: operator %d: it is not what it was when it was taken over.", op->node);
    if (!read || op->kind == NOT_OURS) {
      free_plan(plan);
      return NULL;
    }
    plan->producer[op->outputs->data[0]] = plan->op_count;
  }
  return plan;
}

void free_steps(struct plan *plan) {
  for (int s = 0; s < plan->step_count; s++) {
    free_convolution(plan->steps[s].convolution);
    free(plan->steps[s].copies);
    for (int i = 0; i < plan->steps[s].count; i++) {
      free(plan->steps[s].program[i].constant);
      free(plan->steps[s].program[i].tile);
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
  free(plan->ops);
  free(plan->producer);
  free(plan->is_output);
  free(plan->shapes);
  free(plan);
}
