/* A step under construction: a value in registers, and its way from node to node. */
#ifndef LARQ_REP_CHAIN_H
#define LARQ_REP_CHAIN_H

#include "planner.h"

struct chain {
  struct step *step;
  int offset;        /* first channel of the current value in its concatenation */
  int concatenation; /* position in nodes, or -1 */
  int tail;          /* first instruction behind the concatenation */
  int constants[MAX_INSTRUCTIONS];
};

/* Adds an instruction; `constant` is a tensor, or -1. Instructions for int8 get their scale and zero point. */
void emit(struct planner *p, struct chain *chain, struct planned instruction, int constant);
void emit_clip(struct planner *p, struct chain *chain, TfLiteFusedActivation activation);
void emit_store(struct planner *p, struct chain *chain, enum opcode code, int tensor);

void append_name(struct step *step, enum node_kind kind);

/* Goes on through an operator; its operand beside the value is a constant or is loaded from a buffer. */
void apply(struct planner *p, struct chain *chain, const struct node *node, int side, int buffer, int period);

/* Goes on from a value that the chain holds as far as the graph allows, and ends the chain. */
void follow(struct planner *p, struct chain *chain, int tensor);

/* Goes on behind a concatenation: its first input decides how, the others do the same in their slices. */
void follow_concatenation(struct planner *p, struct chain *chain, int position, int input);

/* Ends the chain: its stores are written. */
void finish(struct planner *p, struct chain *chain);

/* Whether a chain's value can be the operand at position `side`: of equal zeros TFLite takes the second, and so do the
 * instructions. */
static inline bool may_be_value(const struct node *node, int side) {
  return node->kind == NODE_MINIMUM ? side == 0 : node->kind != NODE_MAXIMUM || side == 1;
}

/* The operand beside the value at position `side`. */
static inline int other_operand(const struct node *node, int side) { return node->inputs->data[1 - side]; }

#endif
