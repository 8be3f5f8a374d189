/* TFLite's own operators that the delegate knows. */
#ifndef LARQ_REP_BUILTINS_H
#define LARQ_REP_BUILTINS_H

#include "delegate.h"

/* Reads a node whose inputs and outputs are known; it stays NODE_NOT_OURS if TFLite should keep it. */
void read_builtin(const TfLiteContext *context, const TfLiteNode *tf_node, int builtin, struct node *node);

#endif
