/* What the files of the delegate share. */
#ifndef LARQ_REP_DELEGATE_H
#define LARQ_REP_DELEGATE_H

#include <stdatomic.h>

#include "kernels.h"
#include "tflite.h"

struct options {
  const struct kernels *kernels;
  int num_threads; /* 0: the interpreter's */
  bool profile;
  bool fuse;
};

/* ---- Operators: what a node of the graph is to the delegate (operators.c). ---- */

enum kind {
  NOT_OURS,
  QUANTIZE,
  DEQUANTIZE,
  BCONV,
  BMAXPOOL,
  ADD,
  SUBTRACT,
  MULTIPLY,
  PRELU,
  RELU,
  RELU6,
  RELU_N1_TO_1,
  TILE_CHANNELS,
  CONCATENATE,
  AVERAGE_POOL,
  MAX_POOL,
};

struct window {
  int height, width;
  int stride_height, stride_width;
  int dilation_height, dilation_width;
  bool same; /* padding SAME, else VALID */
};

/* The 32-bit values of a tensor that is known before the first inference; all are the first one where `step` is 0. */
struct values {
  const uint32_t *data;
  size_t step;
};

struct operator {
  int node;
  enum kind kind;
  const TfLiteIntArray *inputs, *outputs;
  TfLiteFusedActivation activation;
  struct window window;
  int channels_in, pad_values; /* BCONV */
  struct values values[5];         /* BCONV: of the inputs that are known */
  int times;                   /* TILE_CHANNELS */
  int rank;                    /* TILE_CHANNELS, CONCATENATE: the only one that the axis fits, or 0 */
};

enum { MAX_THREADS = 64, MAX_RANK = 8, MAX_CHANNELS = 1 << 20, MAX_POOLED = 3 /* pixels of a side of a maximum's window */ };

const char *kind_name(enum kind kind);

/* Reads a node. NOT_OURS where TFLite should keep it; an error, reported, for an LCE operator that is malformed. */
TfLiteStatus read_operator(TfLiteContext *context, int node, struct operator * op);

/* Whether a tensor's value stands in the file. */
bool is_constant(const TfLiteContext *context, int tensor);

const char *tensor_name(const TfLiteContext *context, int tensor);

int last_dimension(const TfLiteTensor *tensor);

/* Whether an operator takes each of its operands' numbers for one of its results, so that operands may be broadcast. */
bool takes_numbers_one_by_one(enum kind kind);

/* The integer of a name in a flexbuffer map; false if it is absent or the buffer is not well formed. */
bool flexbuffer_int(const uint8_t *data, size_t size, const char *key, int64_t *value);

/* ---- Claiming: the nodes of a graph that the delegate takes (claim.c). ---- */

/* Reports and fails for malformed operators; otherwise an array to give to the runtime, to be freed. */
TfLiteStatus claim(TfLiteContext *context, const struct options *options, TfLiteIntArray **nodes);

/* ---- Shapes (shapes.c). ---- */

struct shape {
  int rank;
  int dims[MAX_RANK];
};

enum { SHAPE_TEXT = 12 * MAX_RANK + 3 };

/* "(1, 8, 8, 64)" */
const char *shape_text(const struct shape *shape, char text[SHAPE_TEXT]);
bool equal_shapes(const struct shape *a, const struct shape *b);
/* Channels of a pixel, or packed words; a number alone has one. */
int channels_of_shape(const struct shape *shape);

struct plan;

/* From the shapes that TFLite's tensors have now those of everything that the plan's operators read or compute;
 * reports operators whose operands do not go together, as after a wrong resize. `shapes` has room for all tensors. */
TfLiteStatus find_shapes(TfLiteContext *context, const struct plan *plan, struct shape *shapes);

/* ---- Steps: a partition as what is done one after the other (plan.c). ---- */

/* A tensor that exists in memory while the partition runs. */
struct buffer {
  int tensor;
  int shaped_like;  /* the tensor whose shape it has: another one where an operand is broadcast */
  bool external;    /* TFLite's tensor; otherwise the delegate's own memory */
  bool bits;
  TfLiteType type;
  int pending;      /* steps that still have to write a part of it; used while planning */
  int first, last;  /* steps that write and read it */
  int rank;
  int dims[MAX_RANK];
  int n, h, w;      /* the leading dimensions as images; n is their product where the rank is not 4 */
  int top, left, bottom, right; /* a border of zeros around own packed images */
  int pixel_words;
  int view_of;      /* the buffer that this one is a slice of, or -1 */
  int view_channel; /* its first channel there */
  int ring;         /* rows that are kept: row r lies at r % ring */
  uint64_t offset;  /* in the own memory */
  size_t stride;    /* bytes from a pixel to the next */
  char *data;
};

struct range {
  int first, end;
};

/* The windows along one axis of an image. Taps that meet the image in none of them are left out, so that borders are
 * never wider than the image, whatever dilation and filter a file asks for. */
struct axis {
  int out;
  int padding;        /* before the image, that SAME begins with */
  struct range taps;  /* those that meet the image */
  int start;          /* of the first of them in the first window, from the image's first pixel */
  int before, behind; /* pixels outside the image that they reach */
};

struct convolution {
  const struct kernels *kernels; /* of its sums */
  struct window window;
  struct values filter;
  int channels_in, channels_out, pad_zero;
  struct axis rows, columns;
  struct gemm gemm;       /* of the taps that meet the image */
  struct range packed_rows, packed_columns; /* the taps whose weights are laid out */
  int period;             /* channels whose accumulators and constants are laid out: of repeated ones whole units */
  size_t acc_stride;      /* of a pixel's accumulators */
  int tile_pixels;
  float *scale, *shift;   /* of acc, in whole units */
  float *multiplier;      /* of the correction of zero padding */
  float clamp_low, clamp_high;
  bool clamped;
  int32_t *missed;        /* by output channel: bits that differ in taps that never meet the image; NULL without them */
  int32_t *all_sums;      /* of zero padding, by output channel: the sum of all weights */
  int32_t *sums;          /* of zero padding, [row][column][output channel]: of the weights before that tap */
  float *borders;         /* addends, one row of whole units for each pair of classes */
  int *row_class, *column_class;
  int column_classes;
  uint32_t *padded;       /* a copy of an external input with its border */
  size_t border_bytes, padded_bytes;
  int32_t *tap_offsets;
  uint32_t *weights;
};

enum step_kind { STEP_CONVOLUTION, STEP_ELEMENTWISE, STEP_BINARY_MAX_POOL, STEP_POOL, STEP_DEQUANTIZE, STEP_TILE, STEP_BROADCAST };

struct planned {
  enum opcode code;
  float low, high;
  int buffer;        /* of loads and stores, else -1 */
  int offset;        /* first channel in the buffer */
  int period;        /* channels after which a tiled source repeats */
  float *constant;   /* owned, in whole units */
  int32_t *tile;     /* owned */
};

struct step {
  enum step_kind kind;
  int source;              /* buffer */
  int target;              /* buffer of pools, DEQUANTIZE, and copies */
  struct window window;
  bool maximum;            /* STEP_POOL: of the window's pixels, else their mean */
  struct convolution *convolution;
  int channels;
  int count;
  struct planned program[MAX_INSTRUCTIONS];
  int32_t *copies;         /* of a repeated convolution: the result that each unit begins with */
  int8_t low, high;        /* DEQUANTIZE to int8: what -1 and +1 become */
  const struct operator * op; /* its first, for messages */
  char name[192];
  double seconds, best, now; /* with the option profile: sum and shortest of its runs, and the present one */
};

/* Some rows of a step's output. */
struct task {
  int step, first, last;
};

struct plan {
  /* Once and for all: */
  size_t tensor_count;
  int op_count;
  struct operator * ops;
  int *producer;         /* of each tensor: position in ops, or -1 */
  bool *is_output;       /* of each tensor: whether others than these operators read it */
  /* For the shapes of the tensors: */
  struct shape *shapes;
  int buffer_count, step_count, task_count;
  struct task *tasks; /* what to do, in this order */
  struct buffer *buffers;
  struct step *steps;
};

/* Reads the operators; NULL, reported, if there is no memory or one cannot be taken. */
struct plan *make_plan(TfLiteContext *context, const TfLiteDelegateParams *params);
/* Makes the steps for plan->shapes, in place of those that it has. */
TfLiteStatus make_steps(TfLiteContext *context, struct plan *plan, const struct options *options);
/* Whether the steps that were made for plan->shapes are right for these too. */
bool same_steps(const struct plan *plan, const struct shape *shapes);
void free_steps(struct plan *plan);
void free_plan(struct plan *plan);

/* ---- Convolutions (convolution.c). ---- */

/* All but what depends on the image's size; NULL if there is no memory. */
struct convolution *make_convolution(TfLiteContext *context, const struct operator * op, const struct kernels *kernels);
void free_convolution(struct convolution *convolution);
/* Bytes of its weights, and of everything else that it holds. */
size_t packed_bytes(const struct convolution *convolution);
size_t constant_bytes(const struct convolution *convolution);
/* Lays its constants out so that whole units of all copies of the results, `channels` together, can be loaded from
 * one period on; false if there is no memory. */
bool repeat_results(struct convolution *convolution, int channels);
/* Finds the size of the output, and the border of the input that the windows reach into. */
void place_windows(struct convolution *convolution, const struct buffer *input);
/* Lays out weights and borders, when the input's layout is known; false if there is no memory. */
bool prepare_convolution(struct convolution *convolution, const struct buffer *input);

/* Length of an output axis and the padding before it; false if the window does not fit. */
bool output_size(int in, int kernel, int stride, int dilation, bool same, int *out, int *before);

/* ---- Order (schedule.c). ---- */

bool is_store(enum opcode code);
/* Whether a step writes a buffer or a part of it. */
bool writes(const struct step *step, int buffer);
/* Output images of a step: their number and size. */
void output_images(const struct plan *plan, const struct step *step, int *n, int *h, int *w);
/* Fills plan->tasks; false if there is no memory. To be called when all shapes are known. */
bool make_schedule(struct plan *plan, int num_threads);

/* ---- Execution (execute.c). ---- */

struct threads;

/* What a delegate and its partitions share. The last of them that ends frees it: a program may destroy the delegate
 * while interpreters still use it, and Python's garbage collector ends them in any order. */
struct shared {
  TfLiteDelegate delegate;
  struct options options;
  struct threads *threads;
  atomic_int users;
};

struct partition {
  struct shared *shared;
  const struct options *options;
  struct plan *plan;
  int num_threads;
  char *memory;
  uint64_t memory_bytes;
  char *scratch;
  uint64_t scratch_bytes; /* of one thread */
  long invocations;
};

TfLiteStatus prepare_partition(TfLiteContext *context, struct partition *partition);
TfLiteStatus invoke_partition(TfLiteContext *context, struct partition *partition);
void print_profile(const struct partition *partition);

/* ---- Threads (threads.c). ---- */

/* An empty pool. Its workers sleep while there is nothing to do. */
struct threads *make_threads(void);
void stop_threads(struct threads *threads);
/* task(argument, thread, index) for all indices below count, by up to num_threads threads, the caller one of them;
 * returns when all are done. Where another caller uses or starts the workers already, this one works alone. */
void run_parallel(struct threads *threads, int num_threads, void (*task)(void *argument, int thread, int index),
                  void *argument, int count);

/* Lets the workers sleep at once, so that they do not hold back what comes next, such as TFLite's own. */
void rest_threads(struct threads *threads);

/* ---- Memory. ---- */

/* Aligned to cache lines and zeroed; NULL if there is none, or the product is more than addresses reach. Sizes that
 * a file decides are computed in 64 bits, also where addresses have 32. Freed by free. */
void *allocate(uint64_t count, uint64_t size);

static inline TfLiteStatus no_memory(TfLiteContext *context) {
  context->ReportError(context, "larq-rep: out of memory.");
  return kTfLiteError;
}

static inline int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

#endif
