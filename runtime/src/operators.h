/* The operators that the delegate knows. */
#ifndef LARQ_REP_OPERATORS_H
#define LARQ_REP_OPERATORS_H

#include "delegate.h"

struct node_type {
  const char *name;
  /* Of LCE's operators, which are always taken; an error, reported, where one is malformed. */
  TfLiteStatus (*read)(TfLiteContext *context, const TfLiteNode *tf_node, struct node *node);
  /* Takes each of its operands' numbers for one of its results, so that operands may be broadcast. */
  bool elementwise;
  bool arithmetic;     /* elementwise; either of its two operands may be a constant */
  bool pools;          /* floats: gains nothing where it is not beside others */
  enum step_kind step; /* STEP_ELEMENTWISE, or what it is where it is a step of its own */
};

extern const struct node_type node_types[NODE_KINDS];

static inline bool is_lce(const struct node *node) { return node_types[node->kind].read != NULL; }

/* Reads a node. NODE_NOT_OURS where TFLite should keep it; an error, reported, for an LCE operator that is malformed.
 */
TfLiteStatus read_node(TfLiteContext *context, int index, struct node *node);

#endif
