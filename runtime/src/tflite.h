/* The part of TFLite's C interface that a delegate needs.
 *
 * Declared here from the published layout (TFLite's c/common.h, c/c_api_types.h and builtin_op_data.h), because
 * the runtimes export no symbols: everything is reached through the function pointers of TfLiteContext. Fields are
 * only ever appended, so that the newest layout, initialised with zeros, serves old and new runtimes.
 */
#ifndef LARQ_REP_TFLITE_H
#define LARQ_REP_TFLITE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { kTfLiteOk = 0, kTfLiteError = 1, kTfLiteDelegateError = 2 } TfLiteStatus;

typedef enum {
  kTfLiteFloat32 = 1,
  kTfLiteInt32 = 2,
  kTfLiteInt64 = 4,
  kTfLiteBool = 6,
  kTfLiteInt8 = 9,
} TfLiteType;

typedef enum { kTfLiteMmapRo = 1, kTfLiteDynamic = 4 } TfLiteAllocationType;

enum {
  kTfLiteBuiltinAdd = 0,
  kTfLiteBuiltinAveragePool2d = 1,
  kTfLiteBuiltinConcatenation = 2,
  kTfLiteBuiltinDequantize = 6,
  kTfLiteBuiltinMaxPool2d = 17,
  kTfLiteBuiltinMul = 18,
  kTfLiteBuiltinRelu = 19,
  kTfLiteBuiltinReluN1To1 = 20,
  kTfLiteBuiltinRelu6 = 21,
  kTfLiteBuiltinCustom = 32,
  kTfLiteBuiltinSub = 41,
  kTfLiteBuiltinDelegate = 51,
  kTfLiteBuiltinPrelu = 54,
  kTfLiteBuiltinMaximum = 55,
  kTfLiteBuiltinMinimum = 57,
  kTfLiteBuiltinLess = 58,
  kTfLiteBuiltinNeg = 59,
  kTfLiteBuiltinTile = 69,
  kTfLiteBuiltinFill = 94,
  kTfLiteBuiltinQuantize = 114,
};

typedef enum { kTfLiteActNone = 0, kTfLiteActRelu, kTfLiteActReluN1To1, kTfLiteActRelu6 } TfLiteFusedActivation;
typedef enum { kTfLitePaddingSame = 1, kTfLitePaddingValid = 2 } TfLitePadding;

typedef struct {
  int size;
  int data[];
} TfLiteIntArray;

typedef struct {
  float scale;
  int32_t zero_point;
} TfLiteQuantizationParams;

typedef struct {
  int type;
  void *params;
} TfLiteQuantization;

struct TfLiteContext;
struct TfLiteDelegate;

typedef struct {
  TfLiteType type;
  union {
    void *data;
    float *f;
    int32_t *i32;
    int64_t *i64;
  } data;
  TfLiteIntArray *dims;
  TfLiteQuantizationParams params;
  TfLiteAllocationType allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  struct TfLiteDelegate *delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  TfLiteQuantization quantization;
  void *sparsity;
  const TfLiteIntArray *dims_signature;
} TfLiteTensor;

typedef struct {
  TfLiteIntArray *inputs;
  TfLiteIntArray *outputs;
  TfLiteIntArray *intermediates;
  TfLiteIntArray *temporaries;
  void *user_data;
  void *builtin_data;
  const void *custom_initial_data;
  int custom_initial_data_size;
  struct TfLiteDelegate *delegate;
  bool might_have_side_effect;
} TfLiteNode;

typedef struct {
  void *(*init)(struct TfLiteContext *context, const char *buffer, size_t length);
  void (*free)(struct TfLiteContext *context, void *buffer);
  TfLiteStatus (*prepare)(struct TfLiteContext *context, TfLiteNode *node);
  TfLiteStatus (*invoke)(struct TfLiteContext *context, TfLiteNode *node);
  const char *(*profiling_string)(const struct TfLiteContext *context, const TfLiteNode *node);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *registration_external;
  void *(*async_kernel)(struct TfLiteContext *context, TfLiteNode *node);
  uint64_t inplace_operator;
} TfLiteRegistration;

typedef struct {
  struct TfLiteDelegate *delegate;
  TfLiteIntArray *nodes_to_replace;
  TfLiteIntArray *input_tensors;
  TfLiteIntArray *output_tensors;
} TfLiteDelegateParams;

typedef struct TfLiteContext {
  size_t tensors_size;
  TfLiteStatus (*GetExecutionPlan)(struct TfLiteContext *context, TfLiteIntArray **execution_plan);
  TfLiteTensor *tensors;
  void *impl_;
  TfLiteStatus (*ResizeTensor)(struct TfLiteContext *context, TfLiteTensor *tensor, TfLiteIntArray *new_size);
  void (*ReportError)(struct TfLiteContext *context, const char *message, ...);
  TfLiteStatus (*AddTensors)(struct TfLiteContext *context, int count, int *first_index);
  TfLiteStatus (*GetNodeAndRegistration)(struct TfLiteContext *context, int node_index, TfLiteNode **node,
                                         TfLiteRegistration **registration);
  TfLiteStatus (*ReplaceNodeSubsetsWithDelegateKernels)(struct TfLiteContext *context, TfLiteRegistration registration,
                                                        const TfLiteIntArray *nodes, struct TfLiteDelegate *delegate);
  int recommended_num_threads;
  void *(*GetExternalContext)(struct TfLiteContext *context, int type);
  void (*SetExternalContext)(struct TfLiteContext *context, int type, void *external);
  bool allow_fp32_relax_to_fp16;
  void *profiler;
  void *(*AllocatePersistentBuffer)(struct TfLiteContext *context, size_t bytes);
  TfLiteStatus (*AllocateBufferForEval)(struct TfLiteContext *context, size_t bytes, void **buffer);
  TfLiteStatus (*RequestScratchBufferInArena)(struct TfLiteContext *context, size_t bytes, int *index);
  void *(*GetScratchBuffer)(struct TfLiteContext *context, int index);
  TfLiteStatus (*ResizeTensorExplicit)(struct TfLiteContext *context, TfLiteTensor *tensor, int rank, const int *shape);
  TfLiteStatus (*PreviewDelegatePartitioning)(struct TfLiteContext *context, const TfLiteIntArray *nodes,
                                              TfLiteDelegateParams **partitions, int *count);
  TfLiteTensor *(*GetTensor)(const struct TfLiteContext *context, int index);
  void *(*GetEvalTensor)(const struct TfLiteContext *context, int index);
  TfLiteStatus (*GetModelMetadata)(const struct TfLiteContext *context, const char *name, const char **data,
                                   size_t *bytes);
  TfLiteStatus (*AcquireSubgraphContext)(struct TfLiteContext *context, int index, struct TfLiteContext **acquired);
  TfLiteStatus (*ReleaseSubgraphContext)(struct TfLiteContext *context, int index);
} TfLiteContext;

enum { kTfLiteDelegateFlagsAllowDynamicTensors = 1 };

typedef struct TfLiteDelegate {
  void *data_;
  TfLiteStatus (*Prepare)(TfLiteContext *context, struct TfLiteDelegate *delegate);
  TfLiteStatus (*CopyFromBufferHandle)(TfLiteContext *context, struct TfLiteDelegate *delegate, int handle,
                                       TfLiteTensor *tensor);
  TfLiteStatus (*CopyToBufferHandle)(TfLiteContext *context, struct TfLiteDelegate *delegate, int handle,
                                     TfLiteTensor *tensor);
  void (*FreeBufferHandle)(TfLiteContext *context, struct TfLiteDelegate *delegate, int *handle);
  int64_t flags;
  void *opaque_delegate_builder;
} TfLiteDelegate;

/* Options of builtin operators, as TFLite parsed them. */
typedef struct {
  TfLiteFusedActivation activation;
} TfLiteArithmeticParams; /* the first fields of the parameters of ADD, SUB and MUL */

typedef struct {
  int axis;
  TfLiteFusedActivation activation;
} TfLiteConcatenationParams;

typedef struct {
  TfLitePadding padding;
  int stride_width;
  int stride_height;
  int filter_width;
  int filter_height;
  TfLiteFusedActivation activation;
} TfLitePoolParams;

#if UINTPTR_MAX == UINT64_MAX
static_assert(sizeof(TfLiteDelegate) == 56 && offsetof(TfLiteDelegate, flags) == 40, "TfLiteDelegate");
static_assert(sizeof(TfLiteContext) == 200, "TfLiteContext");
static_assert(offsetof(TfLiteContext, tensors) == 16 && offsetof(TfLiteContext, ReportError) == 40, "TfLiteContext");
static_assert(offsetof(TfLiteContext, recommended_num_threads) == 72, "TfLiteContext");
static_assert(offsetof(TfLiteContext, PreviewDelegatePartitioning) == 152, "TfLiteContext");
static_assert(sizeof(TfLiteTensor) == 112 && offsetof(TfLiteTensor, dims) == 16, "TfLiteTensor");
static_assert(offsetof(TfLiteTensor, bytes) == 40 && offsetof(TfLiteTensor, name) == 56, "TfLiteTensor");
static_assert(sizeof(TfLiteNode) == 80 && offsetof(TfLiteNode, custom_initial_data) == 48, "TfLiteNode");
static_assert(sizeof(TfLiteRegistration) == 88, "TfLiteRegistration");
static_assert(offsetof(TfLiteRegistration, builtin_code) == 40, "TfLiteRegistration");
static_assert(offsetof(TfLiteRegistration, custom_name) == 48, "TfLiteRegistration");
static_assert(sizeof(TfLiteDelegateParams) == 32, "TfLiteDelegateParams");
#endif

#endif
