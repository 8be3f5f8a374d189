/* The state of planning: what has been read, and which tensors already have a buffer. */
#ifndef LARQ_REP_PLANNER_H
#define LARQ_REP_PLANNER_H

#include "delegate.h"

struct concatenation {
  bool emitted; /* one of its inputs has been followed through it */
  int left;     /* inputs that are still to follow */
  bool *done;   /* for each input: whether it was followed */
  bool signs;   /* all inputs but the last are whole units, so that packed signs can be written in slices */
  int count;
  struct planned tail[MAX_INSTRUCTIONS];
  int constants[MAX_INSTRUCTIONS];
};

/* What a node has to do with a sum of convolutions. */
struct summand {
  int count;    /* of an addition: convolutions in the sum so far, 0 if it adds none */
  int side;     /* of an addition: the operand that is a convolution */
  int before;   /* of an addition: the one that it continues, or -1 */
  bool goes_on; /* of an addition: another continues it */
  int sum;      /* of a convolution that is the last of a sum in the graph: the sum's last addition; or -1 */
  bool held;    /* another node's step does its work */
};

struct planner {
  TfLiteContext *context;
  const struct options *options;
  const struct node *nodes;
  const int *producer;
  const bool *is_output;
  const struct shape *shapes;
  bool *done;
  struct concatenation **concatenations;
  struct summand *summands;
  int *buffer_of;              /* of each tensor */
  int *source_of;              /* tensor to read instead: whose channels this one repeats, or int8; or -1 */
  int *readers, *reader_start; /* of each tensor: positions in nodes */
  struct plan *plan;
  TfLiteStatus status;
};

/* Finds the readers of each tensor, and makes room for the largest possible number of steps and buffers; false if there
 * is no memory. The planner must be ended in either case. */
bool start_planner(struct planner *p);
void end_planner(struct planner *p);

/* Reports an operator that cannot be planned; only the first one. */
void fail(struct planner *p, const struct node *node, const char *reason);

int channels_of(const struct planner *p, int tensor);

struct step *add_step(struct planner *p, enum step_kind kind, const struct node *node, int channels);

/* A buffer for a tensor, or for an operand in the shape of another. */
int add_buffer(struct planner *p, int tensor, bool external, int pending);
int add_unnamed_buffer(struct planner *p, int tensor, int shaped_like, bool external, int pending);

/* The last step so far reads or writes a buffer. */
void touch(struct planner *p, int buffer);

/* The buffer of a tensor whose value is complete, otherwise -1. */
int available(struct planner *p, int tensor);

/* Where a tensor can be loaded from, repeated after *period channels (0: not repeated); -1 if nowhere yet. Integers
 * stand for the floats that DEQUANTIZE makes of them. */
int loadable(struct planner *p, int tensor, int *period);

static inline bool is_int8(const struct planner *p, int tensor) {
  return p->context->tensors[tensor].type == kTfLiteInt8;
}

#endif
