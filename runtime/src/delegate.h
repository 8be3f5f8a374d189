/* The types that the files of the delegate share. */
#ifndef LARQ_REP_DELEGATE_H
#define LARQ_REP_DELEGATE_H

#include "kernels.h"
#include "tflite.h"

enum {
  MAX_THREADS = 64,
  MAX_RANK = 8,
  MAX_CHANNELS = 1 << 20,
  MAX_POOLED = 3, /* pixels of a side of a maximum's window */
};

struct options {
  const struct kernels *kernels;
  int num_threads; /* 0: the interpreter's */
  int cache_kb;    /* of all threads; 0: as the system tells */
  bool profile;
  bool fuse;
};

struct range {
  int first, end;
};

struct shape {
  int rank;
  int dims[MAX_RANK];
};

/* ---- The graph ---- */

enum node_kind {
  NODE_NOT_OURS,
  NODE_QUANTIZE,
  NODE_DEQUANTIZE,
  NODE_BCONV,
  NODE_BMAXPOOL,
  NODE_ADD,
  NODE_SUBTRACT,
  NODE_MULTIPLY,
  NODE_MINIMUM,
  NODE_MAXIMUM,
  NODE_LESS,
  NODE_NEGATE,
  NODE_PRELU,
  NODE_RELU,
  NODE_RELU6,
  NODE_RELU_N1_TO_1,
  NODE_REPEAT, /* of the channels: TILE, or CONCATENATION of one tensor with itself */
  NODE_CONCATENATE,
  NODE_TO_INT8,   /* TFLite's QUANTIZE of floats */
  NODE_FROM_INT8, /* TFLite's DEQUANTIZE to floats */
  NODE_AVERAGE_POOL,
  NODE_MAX_POOL,
  NODE_KINDS
};

struct window {
  int height, width;
  int stride_height, stride_width;
  int dilation_height, dilation_width;
  bool same; /* padding SAME, else VALID */
};

/* The 32-bit values of a tensor that is known before the first inference; if `stride` is 0, all equal the first. */
struct values {
  const uint32_t *data;
  size_t stride;
};

/* A node of the graph, as the delegate reads it. */
struct node {
  int index; /* in the graph */
  enum node_kind kind;
  const TfLiteIntArray *inputs, *outputs;
  TfLiteFusedActivation activation;
  struct window window;
  int channels_in, pad_values; /* NODE_BCONV */
  struct values values[5];     /* NODE_BCONV: of the inputs that are known */
  int times;                   /* NODE_REPEAT */
  int rank;                    /* NODE_REPEAT, NODE_CONCATENATE: the only rank that the axis fits, or 0 */
};

/* ---- The plan: a partition as steps, done one after the other ---- */

/* A tensor that exists in memory while the partition runs. */
struct buffer {
  int tensor;
  int shaped_like; /* the tensor whose shape it has: a different one if an operand is broadcast */
  bool external;   /* TFLite's tensor; otherwise the delegate's own memory */
  bool bits;
  TfLiteType type;
  int pending;               /* steps that must still write a part of it; used while planning */
  int first_step, last_step; /* that write and read it */
  int rank;
  int dims[MAX_RANK];
  int n, h, w;                  /* the leading dimensions as images; n is their product where the rank is not 4 */
  int top, left, bottom, right; /* a border of zeros around own packed images */
  int pixel_words;
  int view_of;      /* the buffer that this one is a slice of, or -1 */
  int view_channel; /* its first channel there */
  int ring;         /* number of rows that are kept: row r is at r % ring */
  uint64_t offset;  /* in the own memory */
  size_t stride;    /* bytes from a pixel to the next */
  char *data;
};

enum step_kind {
  STEP_ELEMENTWISE,
  STEP_CONVOLUTION,
  STEP_BINARY_MAX_POOL,
  STEP_POOL,
  STEP_DEQUANTIZE,
  STEP_REPEAT,
  STEP_BROADCAST
};

/* An instruction of a step, as far as it is known before the tensors have their memory. */
struct planned {
  enum opcode code;
  float low, high;
  int buffer;               /* of loads and stores, else -1 */
  int offset;               /* first channel in the buffer */
  int period;               /* channels after which the source repeats, or 0 */
  float *constant;          /* owned, in whole units */
  int32_t *source_channels; /* owned; of each unit, if the source repeats */
};

struct part {
  int first, count;
  run_function run;
};

struct convolution;

struct step {
  enum step_kind kind;
  int source;           /* buffer */
  int target;           /* buffer; -1 if the program stores */
  struct window window; /* of pools; all 0 for other steps */
  bool maximum;         /* STEP_POOL: of the window's pixels, otherwise their mean */
  struct convolution *convolution;
  int channels;
  int count;
  struct planned program[MAX_INSTRUCTIONS];
  int part_count;
  struct part parts[MAX_INSTRUCTIONS]; /* of the program: one begins at each OP_LOAD */
  int32_t *copies;                     /* of a repeated convolution: the first result of each unit */
  int8_t low, high;                    /* STEP_DEQUANTIZE to int8: what -1 and +1 become */
  struct range tasks;                  /* of the plan: from its first to behind its last */
  const struct node *node;             /* its first, for messages */
  char name[192];
  int fewest_parts;          /* with the option profile: the fewest that its turns had for the threads */
  double seconds, best, now; /* the same: sum and shortest of its runs, and the current one */
};

/* Whether a view, or other steps, do all its work. */
static inline bool is_nothing(const struct step *step) { return step->kind == STEP_ELEMENTWISE && step->count == 1; }

/* Some rows of a step's output. */
struct task {
  int step;
  struct range rows;
};

struct plan {
  /* Once and for all: */
  size_t tensor_count;
  int node_count;
  struct node *nodes;
  int *producer;   /* of each tensor: position in nodes, or -1 */
  bool *is_output; /* of each tensor: whether it is read outside these nodes */
  /* For the shapes of the tensors: */
  struct shape *shapes;
  int buffer_count, step_count, task_count;
  struct task *tasks; /* the work, in this order */
  struct buffer *buffers;
  struct step *steps;
};

static inline int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

static inline int length(struct range range) { return range.end - range.first; }

static inline bool same_range(struct range a, struct range b) { return a.first == b.first && a.end == b.end; }

#endif
