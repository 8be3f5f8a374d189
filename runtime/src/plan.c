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
  bool signs;      /* all inputs but the last are whole units, so that packed signs can be written in slices */
  int count;
  struct planned tail[MAX_INSTRUCTIONS];
  int constants[MAX_INSTRUCTIONS];
};

struct planner {
  TfLiteContext *context;
  const struct options *options;
  int count;
  struct operator * ops;
  bool *done;
  struct concatenation **concatenations;
  bool *input_done; /* of concatenations: [op * most_inputs + input] */
  int most_inputs;
  int *buffer_of;   /* of each tensor */
  int *producer;    /* of each tensor, position in ops */
  int *tiled_from;  /* tensor that this one repeats, or -1 */
  bool *is_output;
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

static int channels_of(const struct planner *p, int tensor) { return last_dimension(&p->context->tensors[tensor]); }

static void fail(struct planner *p, int node, const char *reason) {
  if (p->status == kTfLiteOk)
    p->context->ReportError(p->context, "larq-rep: cannot plan operator %d: %s.", node, reason);
  p->status = kTfLiteError;
}

static int add_buffer(struct planner *p, int tensor, bool external, int pending) {
  struct buffer *b = &p->plan->buffers[p->plan->buffer_count];
  const TfLiteTensor *t = &p->context->tensors[tensor];
  *b = (struct buffer){.tensor = tensor, .external = external, .type = t->type, .channels = last_dimension(t),
                       .pending = pending, .view_of = -1, .first = p->plan->step_count - 1, .last = p->plan->step_count - 1};
  p->buffer_of[tensor] = p->plan->buffer_count;
  return p->plan->buffer_count++;
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
  *step = (struct step){.kind = kind, .source = -1, .target = -1, .repeat = 1, .channels = channels, .node = op->node};
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
    fail(p, step->node, "too many operators in a row");
    return;
  }
  instruction.constant = NULL;
  instruction.tile = NULL;
  if (constant >= 0) {
    instruction.constant = slice_constant(p, constant, chain->offset, step->channels);
    if (!instruction.constant) fail(p, step->node, "out of memory");
  }
  if (instruction.period) {
    const int units = round_up(step->channels, UNIT) / UNIT;
    instruction.tile = allocate((size_t)units, sizeof(int32_t));
    if (!instruction.tile) fail(p, step->node, "out of memory");
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

/* Whether the chain whose value is `tensor` can go on through this operator now. */
static bool can_apply(struct planner *p, const struct chain *chain, const struct operator * op, int tensor) {
  int period;
  if (chain->step->count + 6 > MAX_INSTRUCTIONS) return false;
  if (op->kind == PRELU || op->kind == RELU || op->kind == RELU6 || op->kind == RELU_N1_TO_1) return true;
  if (!arithmetic(op->kind)) return false;
  const int operand = other(op, side_of(op, tensor));
  if (operand == tensor) return false;
  if (is_constant(p->context, operand)) return true;
  if (loadable(p, operand, &period) < 0) return false;
  return !period || (op->kind == ADD && (chain->concatenation < 0 || p->concatenations[chain->concatenation]->signs));
}

static void apply(struct planner *p, struct chain *chain, const struct operator * op, int tensor) {
  const int side = side_of(op, tensor);
  int period;
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
    const int buffer = loadable(p, operand, &period);
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
    if (op->inputs->data[i] == tensor && !p->input_done[concatenation * p->most_inputs + i]) return i;
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
  p->input_done[position * p->most_inputs + input] = true;
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
      step->repeat = channels_of(p, op->outputs->data[0]) / step->channels;
      step->channels *= step->repeat;
      const int units = round_up(step->channels, UNIT) / UNIT;
      step->copies = allocate((size_t)units, sizeof *step->copies);
      if (!step->copies || !repeat_results(step->convolution, step->channels)) fail(p, step->node, "out of memory");
      for (int u = 0; step->copies && u < units; u++) step->copies[u] = u * UNIT % step->convolution->period;
    } else {
      apply(p, chain, op, tensor);
    }
    p->done[next] = true;
    tensor = op->outputs->data[0];
  }
  finish(p, chain);
}

/* Starts a step that loads a tensor. */
static bool start_load(struct planner *p, struct chain *chain, const struct operator * op, int tensor) {
  int period;
  const int buffer = loadable(p, tensor, &period);
  if (buffer < 0) {
    fail(p, op->node, "an operand is computed too late");
    return false;
  }
  const TfLiteTensor *t = &p->context->tensors[tensor];
  *chain = (struct chain){.step = add_step(p, STEP_ELEMENTWISE, op, channels_of(p, tensor)), .concatenation = -1};
  chain->step->source = buffer;
  const enum opcode code = period ? OP_LOAD_TILED : t->type == kTfLiteInt8 ? OP_LOAD_INT8
                           : t->type == kTfLiteBool                        ? OP_LOAD_BOOL
                                                                           : OP_LOAD;
  emit(p, chain,
       (struct planned){.code = code, .buffer = buffer, .period = period, .low = (float)t->params.zero_point}, -1);
  return true;
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

static void plan_window(struct planner *p, const struct operator * op, enum step_kind kind) {
  const int input = op->inputs->data[0], output = op->outputs->data[0];
  const int source = materialise(p, op, input);
  if (source < 0) {
    fail(p, op->node, "an operand is computed too late");
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
        fail(p, op->node, "its input is computed too late");
        return;
      }
      const int filters = p->context->tensors[op->inputs->data[1]].dims->data[0];
      chain = (struct chain){.step = add_step(p, STEP_CONVOLUTION, op, filters), .concatenation = -1};
      chain.step->source = source;
      p->plan->buffers[source].bits = true;
      touch(p, source);
      chain.step->convolution = make_convolution(p->context, op, p->options->kernels);
      if (!chain.step->convolution) {
        fail(p, op->node, "out of memory");
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
        if (!p->input_done[position * p->most_inputs + i] && start_load(p, &chain, op, op->inputs->data[i]))
          follow_concatenation(p, &chain, position, i);
      return;
    default: {
      /* The first operand that is no constant is the value, and repeated ones are better loaded as an addend. */
      int side = is_constant(p->context, op->inputs->data[0]) ? 1 : 0;
      int period;
      const int operand = op->inputs->size > 1 ? other(op, side) : -1;
      if (operand >= 0 && !is_constant(p->context, operand) && op->kind != ADD) materialise(p, op, operand);
      if (!start_load(p, &chain, op, op->inputs->data[side])) return;
      if (operand >= 0 && !is_constant(p->context, operand) && loadable(p, operand, &period) < 0) {
        fail(p, op->node, "an operand is computed too late");
        return;
      }
      apply(p, &chain, op, op->inputs->data[side]);
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

static TfLiteStatus read_graph(struct planner *p, const TfLiteDelegateParams *params) {
  const TfLiteIntArray *nodes = params->nodes_to_replace;
  const size_t tensors = p->context->tensors_size;
  p->count = nodes->size;
  p->ops = allocate((size_t)nodes->size, sizeof *p->ops);
  p->done = allocate((size_t)nodes->size, sizeof *p->done);
  p->concatenations = allocate((size_t)nodes->size, sizeof *p->concatenations);
  p->buffer_of = allocate(tensors, sizeof *p->buffer_of);
  p->producer = allocate(tensors, sizeof *p->producer);
  p->tiled_from = allocate(tensors, sizeof *p->tiled_from);
  p->is_output = allocate(tensors, sizeof *p->is_output);
  p->reader_start = allocate(tensors + 2, sizeof *p->reader_start);
  if (!p->ops || !p->done || !p->concatenations || !p->buffer_of || !p->producer || !p->tiled_from || !p->is_output ||
      !p->reader_start)
    return no_memory(p->context);
  for (size_t t = 0; t < tensors; t++) p->buffer_of[t] = p->producer[t] = p->tiled_from[t] = -1;
  for (int i = 0; i < params->output_tensors->size; i++) p->is_output[params->output_tensors->data[i]] = true;
  int steps = 0, most = 1, total = 0;
  for (int i = 0; i < nodes->size; i++) {
    struct operator * op = &p->ops[i];
    if (read_operator(p->context, nodes->data[i], op) != kTfLiteOk) return kTfLiteError;
    if (op->kind == NOT_OURS) {
      fail(p, op->node, "it is not what it was when it was taken over");
      return kTfLiteError;
    }
    p->producer[op->outputs->data[0]] = i;
    most = op->inputs->size > most ? op->inputs->size : most;
    /* Each input of a concatenation may take a step of its own, and each operand be a tile to be written out. */
    steps += 2 * op->inputs->size + 1;
    for (int j = 0; j < op->inputs->size; j++)
      if (first_mention(op, j)) {
        p->reader_start[op->inputs->data[j] + 2]++;
        total++;
      }
  }
  p->most_inputs = most;
  p->input_done = allocate((size_t)nodes->size, (size_t)most * sizeof *p->input_done);
  p->readers = allocate((size_t)total, sizeof *p->readers);
  p->plan->steps = allocate((size_t)steps, sizeof *p->plan->steps);
  p->plan->buffers = allocate((size_t)(steps + total), sizeof *p->plan->buffers);
  if (!p->input_done || !p->readers || !p->plan->steps || !p->plan->buffers) return no_memory(p->context);
  for (size_t t = 2; t < tensors + 2; t++) p->reader_start[t] += p->reader_start[t - 1];
  for (int i = 0; i < nodes->size; i++)
    for (int j = 0; j < p->ops[i].inputs->size; j++)
      if (first_mention(&p->ops[i], j)) p->readers[p->reader_start[p->ops[i].inputs->data[j] + 1]++] = i;
  for (int i = 0; i < nodes->size; i++)
    if (p->ops[i].kind == CONCATENATE) {
      p->concatenations[i] = allocate(1, sizeof **p->concatenations);
      if (!p->concatenations[i]) return no_memory(p->context);
      p->concatenations[i]->left = p->ops[i].inputs->size;
    }
  return kTfLiteOk;
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

struct plan *make_plan(TfLiteContext *context, const TfLiteDelegateParams *params, const struct options *options) {
  struct planner p = {.context = context, .options = options, .status = kTfLiteOk};
  p.plan = calloc(1, sizeof *p.plan);
  p.status = p.plan ? read_graph(&p, params) : no_memory(context);
  for (int i = 0; i < p.count && p.status == kTfLiteOk; i++)
    if (!p.done[i]) plan_operator(&p, i);
  if (p.status == kTfLiteOk) make_views(p.plan);
  for (int i = 0; p.concatenations && i < p.count; i++) free(p.concatenations[i]);
  free(p.concatenations);
  free(p.ops);
  free(p.done);
  free(p.input_done);
  free(p.buffer_of);
  free(p.producer);
  free(p.tiled_from);
  free(p.is_output);
  free(p.readers);
  free(p.reader_start);
  if (p.status != kTfLiteOk) {
    free_plan(p.plan);
    return NULL;
  }
  return p.plan;
}

void free_plan(struct plan *plan) {
  if (!plan) return;
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
  free(plan);
}
