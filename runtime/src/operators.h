/* The operators that the delegate knows. */
#ifndef LARQ_REP_OPERATORS_H
#define LARQ_REP_OPERATORS_H

#include "delegate.h"

struct node_type {
  const char *name;
  /* Of LCE's operators, which are always taken; an error, reported, where one is malformed. */
  TfLiteStatus (*read)(TfLiteContext *context, const TfLiteNode *tf_node, struct node *node);
  /* Each number of its result takes one number of each operand, so that operands may be broadcast. */
  bool elementwise;
  bool arithmetic;     /* elementwise; either of its two operands may be a constant */
  bool pools;          /* floats: gains nothing unless it is next to others */
  enum step_kind step; /* STEP_ELEMENTWISE, or the kind of its own step */
};

extern const struct node_type node_types[NODE_KINDS];

static inline bool is_lce(const struct node *node) { return node_types[node->kind].read != NULL; }

/* Reads a node: NODE_NOT_OURS if TFLite should keep it. Reports an error for an LCE operator that is malformed. */
TfLiteStatus read_node(TfLiteContext *context, int index, struct node *node);

#endif
