/* A step keeps a value in registers and follows the graph from node to node as long as the other operands are
 * constants or already exist. It stores a value only if another step reads it. Copies of TILE are an index.
 * CONCATENATION is followed too: each of its inputs' steps goes on in its own slice of the channels.
 */
#include "chain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convolution.h"
#include "memory.h"
#include "operators.h"
#include "plan.h"
#include "shapes.h"
#include "tensors.h"

static float *slice_constant(struct planner *p, int tensor, int offset, int channels) {
  const TfLiteTensor *t = &p->context->tensors[tensor];
  float *constant = allocate((size_t)round_up(channels, UNIT), sizeof *constant);
  const bool scalar = t->dims->size == 0 || last_dimension(t) == 1; /* it may have more bytes than its shape says */
  for (int c = 0; constant && c < channels; c++) constant[c] = t->data.f[scalar ? 0 : offset + c];
  return constant;
}

/* The scale and the zero point of the integers that an instruction loads or stores. */
static void set_levels(const struct planner *p, struct planned *instruction) {
  const TfLiteTensor *t = &p->context->tensors[p->plan->buffers[instruction->buffer].tensor];
  const float zero = (float)t->params.zero_point;
  if (instruction->code == OP_STORE_QUANTIZED) {
    instruction->low = 1 / t->params.scale;
    instruction->high = zero;
  } else if (instruction->code == OP_LOAD_INT8 || instruction->code == OP_ADD_LOADED_INT8) {
    instruction->low = zero;
    instruction->high = is_quantized(t) ? t->params.scale : 1; /* signs need no scale */
  }
}

void emit(struct planner *p, struct chain *chain, struct planned instruction, int constant) {
  struct step *step = chain->step;
  if (step->count == MAX_INSTRUCTIONS) {
    fail(p, step->node, "too many operators in a row");
    return;
  }
  instruction.constant = NULL;
  instruction.source_channels = NULL;
  if (instruction.buffer >= 0) set_levels(p, &instruction);
  if (constant >= 0) {
    instruction.constant = slice_constant(p, constant, chain->offset, step->channels);
    if (!instruction.constant) fail(p, step->node, "no memory for its constants");
  }
  if (instruction.period) {
    const int units = round_up(step->channels, UNIT) / UNIT;
    instruction.source_channels = allocate((size_t)units, sizeof(int32_t));
    if (!instruction.source_channels) fail(p, step->node, "no memory for its constants");
    for (int u = 0; instruction.source_channels && u < units; u++)
      instruction.source_channels[u] = (instruction.offset + u * UNIT) % instruction.period;
  }
  if (instruction.buffer >= 0) touch(p, instruction.buffer);
  chain->constants[step->count] = constant;
  step->program[step->count++] = instruction;
}

static void emit_loaded(struct planner *p, struct chain *chain, enum opcode code, int buffer, int period) {
  emit(p, chain, (struct planned){.code = code, .buffer = buffer, .offset = chain->offset, .period = period}, -1);
}

void emit_clip(struct planner *p, struct chain *chain, TfLiteFusedActivation activation) {
  if (activation == kTfLiteActNone) return;
  const float low = activation == kTfLiteActReluN1To1 ? -1.0f : 0.0f;
  const float high = activation == kTfLiteActRelu ? INFINITY : activation == kTfLiteActRelu6 ? 6.0f : 1.0f;
  emit(p, chain, (struct planned){.code = OP_CLIP, .low = low, .high = high, .buffer = -1}, -1);
}

void emit_store(struct planner *p, struct chain *chain, enum opcode code, int tensor) {
  const int parts = chain->concatenation < 0 ? 1 : p->nodes[chain->concatenation].inputs->size;
  const int buffer = add_buffer(p, tensor, p->is_output[tensor], parts);
  p->source_of[tensor] = -1;
  p->plan->buffers[buffer].bits = code == OP_STORE_SIGNS;
  emit(p, chain, (struct planned){.code = code, .buffer = buffer, .offset = chain->offset}, -1);
}

/* Nothing but signs can follow booleans, and these are stored already. */
static void store_value(struct planner *p, struct chain *chain, int tensor) {
  const bool boolean = p->context->tensors[tensor].type == kTfLiteBool;
  if (boolean) emit(p, chain, (struct planned){.code = OP_AT_LEAST, .low = 0, .buffer = -1}, -1);
  emit_store(p, chain, boolean ? OP_STORE_INT8 : OP_STORE, tensor);
}

static int side_of(const struct node *node, int tensor) { return node->inputs->data[0] == tensor ? 0 : 1; }

/* Whether the chain whose value is `tensor` can go on through this operator now. */
static bool can_apply(struct planner *p, const struct chain *chain, const struct node *node, int tensor) {
  int period;
  if (!node_types[node->kind].elementwise || chain->step->count + 6 > MAX_INSTRUCTIONS ||
      is_broadcast(p->shapes, node, tensor))
    return false;
  if (!node_types[node->kind].arithmetic) return true;
  const int side = side_of(node, tensor), operand = other_operand(node, side);
  if (operand == tensor || !may_be_value(node, side)) return false;
  if (is_constant(p->context, operand)) return true;
  const int buffer = is_broadcast(p->shapes, node, operand) ? -1 : loadable(p, operand, &period);
  if (buffer < 0 || p->source_of[operand] < 0) return buffer >= 0;
  return node->kind == NODE_ADD &&
         (!period || chain->concatenation < 0 || p->concatenations[chain->concatenation]->signs);
}

void apply(struct planner *p, struct chain *chain, const struct node *node, int side, int buffer, int period) {
  switch (node->kind) {
    case NODE_PRELU:
      emit(p, chain, (struct planned){.code = OP_PRELU, .buffer = -1}, other_operand(node, 0));
      return;
    case NODE_NEGATE:
      emit(p, chain, (struct planned){.code = OP_NEGATE, .buffer = -1}, -1);
      return;
    case NODE_RELU:
      emit_clip(p, chain, kTfLiteActRelu);
      return;
    case NODE_RELU6:
      emit_clip(p, chain, kTfLiteActRelu6);
      return;
    case NODE_RELU_N1_TO_1:
      emit_clip(p, chain, kTfLiteActReluN1To1);
      return;
    default:
      break;
  }
  const int operand = other_operand(node, side);
  /* a < b where b - a is positive. */
  const bool less = node->kind == NODE_LESS, subtracted = (side == 0) != less;
  const enum opcode of_constant = node->kind == NODE_ADD        ? OP_ADD
                                  : node->kind == NODE_MULTIPLY ? OP_MULTIPLY
                                  : subtracted                  ? OP_SUBTRACT
                                                                : OP_SUBTRACT_FROM;
  const enum opcode of_loaded = node->kind == NODE_ADD        ? OP_ADD_LOADED
                                : node->kind == NODE_MULTIPLY ? OP_MULTIPLY_LOADED
                                : node->kind == NODE_MINIMUM  ? OP_MIN_LOADED
                                : node->kind == NODE_MAXIMUM  ? OP_MAX_LOADED
                                : subtracted                  ? OP_SUBTRACT_LOADED
                                                              : OP_SUBTRACT_FROM_LOADED;
  if (is_constant(p->context, operand)) {
    emit(p, chain, (struct planned){.code = of_constant, .buffer = -1}, operand);
  } else {
    const bool int8 = is_int8(p, p->plan->buffers[buffer].tensor);
    emit_loaded(p, chain, period ? OP_ADD_LOADED_REPEATED : int8 ? OP_ADD_LOADED_INT8 : of_loaded, buffer, period);
  }
  if (less) emit(p, chain, (struct planned){.code = OP_IS_POSITIVE, .buffer = -1}, -1);
  emit_clip(p, chain, node->activation);
}

void append_name(struct step *step, enum node_kind kind) {
  const size_t used = strlen(step->name);
  snprintf(step->name + used, sizeof step->name - used, "%s%s", used ? "+" : "", node_types[kind].name);
}

static int input_channel(const struct planner *p, const struct node *node, int input) {
  int channel = 0;
  for (int i = 0; i < input; i++) channel += channels_of(p, node->inputs->data[i]);
  return channel;
}

static int next_input(const struct planner *p, int concatenation, int tensor) {
  const struct node *node = &p->nodes[concatenation];
  for (int i = 0; i < node->inputs->size; i++)
    if (node->inputs->data[i] == tensor && !p->concatenations[concatenation]->done[i]) return i;
  return -1;
}

void finish(struct planner *p, struct chain *chain) {
  const struct step *step = chain->step;
  for (int i = 0; i < step->count; i++)
    if (is_store(step->program[i].code)) p->plan->buffers[step->program[i].buffer].pending--;
}

void follow_concatenation(struct planner *p, struct chain *chain, int position, int input) {
  const struct node *node = &p->nodes[position];
  struct concatenation *state = p->concatenations[position];
  chain->concatenation = position;
  chain->offset = input_channel(p, node, input);
  state->done[input] = true;
  append_name(chain->step, NODE_CONCATENATE);
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
  for (int i = 0; i + 1 < node->inputs->size; i++)
    state->signs = state->signs && channels_of(p, node->inputs->data[i]) % UNIT == 0;
  chain->tail = chain->step->count;
  follow(p, chain, node->outputs->data[0]);
  for (int i = chain->tail; i < chain->step->count; i++) {
    state->tail[state->count] = chain->step->program[i];
    state->constants[state->count++] = chain->constants[i];
  }
}

void follow(struct planner *p, struct chain *chain, int tensor) {
  while (p->status == kTfLiteOk) {
    const int *readers = p->readers + p->reader_start[tensor];
    const int count = p->reader_start[tensor + 1] - p->reader_start[tensor];
    struct step *step = chain->step;
    const bool signs = chain->concatenation < 0 || p->concatenations[chain->concatenation]->signs;
    int next = -1, left = 0;
    for (int i = 0; i < count; i++) {
      const struct node *node = &p->nodes[readers[i]];
      if (p->done[readers[i]]) continue;
      const bool packs = node->kind == NODE_QUANTIZE && signs;
      if ((packs || node->kind == NODE_TO_INT8) && step->count + 4 < MAX_INSTRUCTIONS) {
        emit_store(p, chain, packs ? OP_STORE_SIGNS : OP_STORE_QUANTIZED, node->outputs->data[0]);
        append_name(step, node->kind);
        p->done[readers[i]] = true;
        continue;
      }
      left++;
      if (next >= 0) continue;
      if (can_apply(p, chain, node, tensor) || node->kind == NODE_FROM_INT8 ||
          (node->kind == NODE_CONCATENATE && chain->concatenation < 0 && next_input(p, readers[i], tensor) >= 0 &&
           (!p->concatenations[readers[i]]->emitted ||
            step->count + p->concatenations[readers[i]]->count + 2 < MAX_INSTRUCTIONS)) ||
          (node->kind == NODE_REPEAT && step->kind == STEP_CONVOLUTION && step->count == 1 && count == 1 &&
           chain->concatenation < 0 && !p->is_output[tensor]))
        next = readers[i];
    }
    if (p->buffer_of[tensor] < 0 && (p->is_output[tensor] || (left > (next >= 0) && p->source_of[tensor] < 0)))
      store_value(p, chain, tensor);
    if (next < 0) break;
    const struct node *node = &p->nodes[next];
    if (node->kind == NODE_CONCATENATE) {
      follow_concatenation(p, chain, next, next_input(p, next, tensor));
      return;
    }
    append_name(step, node->kind);
    if (node->kind == NODE_REPEAT) {
      step->channels = channels_of(p, node->outputs->data[0]);
      const int units = round_up(step->channels, UNIT) / UNIT;
      free(step->copies); /* of a TILE before this one */
      step->copies = allocate((size_t)units, sizeof *step->copies);
      if (!step->copies || !repeat_results(step->convolution, step->channels))
        fail(p, node, "no memory for its copies");
      for (int u = 0; step->copies && u < units; u++) step->copies[u] = u * UNIT % step->convolution->period;
    } else if (node->kind != NODE_FROM_INT8) { /* which is how its integers are loaded */
      const int side = side_of(node, tensor),
                operand = node_types[node->kind].arithmetic ? other_operand(node, side) : tensor;
      int period = 0;
      const int buffer = is_constant(p->context, operand) || operand == tensor ? -1 : loadable(p, operand, &period);
      apply(p, chain, node, side, buffer, period);
    }
    p->done[next] = true;
    tensor = node->outputs->data[0];
  }
  finish(p, chain);
}
