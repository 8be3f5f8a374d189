/* Shapes of tensors, and how operators change them. */
#ifndef LARQ_REP_SHAPES_H
#define LARQ_REP_SHAPES_H

#include "delegate.h"

enum { SHAPE_TEXT = 12 * MAX_RANK + 3 };

/* "(1, 8, 8, 64)" */
const char *shape_text(const struct shape *shape, char text[SHAPE_TEXT]);
bool equal_shapes(const struct shape *a, const struct shape *b);
/* Channels of a pixel, or packed words; a scalar has one. */
int channels_of_shape(const struct shape *shape);
/* Whether an operand must be broadcast to the shape of the node's result. */
bool is_broadcast(const struct shape *shapes, const struct node *node, int tensor);

/* Finds the shapes of everything that the plan's operators read or compute, from the present ones of TFLite's tensors;
 * reports operators whose operands do not go together, as after a wrong resize. `shapes` has room for all tensors. */
TfLiteStatus find_shapes(TfLiteContext *context, const struct plan *plan, struct shape *shapes);

#endif
