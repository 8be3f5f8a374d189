/* The whole delegate in a small host, through its two functions: each of its allocations fails once, and delegate and
 * interpreter end in both orders. Every failure has to say why, leave no memory behind, and be no hindrance to the
 * next attempt; the results are those of a run without a failure.
 *   faults [options of the delegate, such as num_threads=2 profile=1]
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

TfLiteDelegate *tflite_plugin_create_delegate(const char *const *keys, const char *const *values, size_t count,
                                              void (*report_error)(const char *));
void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate);

/* ---- Memory: the linker gives these the delegate's calls (-Wl,--wrap) ---- */

enum { MOST_LIVE = 4096 };

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
int __real_posix_memalign(void **memory, size_t alignment, size_t size);
void __real_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t size);
void __wrap_free(void *memory);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* workers free, too */
static bool watching;                                    /* the delegate is at work, not the host */
static int allocations, fails_at, live_count;
static void *live[MOST_LIVE];

static bool fails(void) { return watching && ++allocations == fails_at; }

static void *keep(void *memory) {
  if (watching && memory && live_count < MOST_LIVE) live[live_count++] = memory;
  return memory;
}

void *__wrap_malloc(size_t size) {
  pthread_mutex_lock(&lock);
  void *memory = fails() ? NULL : keep(__real_malloc(size));
  pthread_mutex_unlock(&lock);
  return memory;
}

void *__wrap_calloc(size_t count, size_t size) {
  pthread_mutex_lock(&lock);
  void *memory = fails() ? NULL : keep(__real_calloc(count, size));
  pthread_mutex_unlock(&lock);
  return memory;
}

int __wrap_posix_memalign(void **memory, size_t alignment, size_t size) {
  pthread_mutex_lock(&lock);
  const int status = fails() ? 12 : __real_posix_memalign(memory, alignment, size);
  if (status == 0) keep(*memory);
  pthread_mutex_unlock(&lock);
  return status;
}

void __wrap_free(void *memory) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < live_count; i++)
    if (live[i] == memory) {
      live[i] = live[--live_count];
      break;
    }
  pthread_mutex_unlock(&lock);
  __real_free(memory);
}

/* ---- A host with one graph ---- */

enum {
  X,
  WORDS,
  PACKED,
  FILTER,
  MULTIPLIER,
  BIAS,
  NARROW,
  TIMES,
  TILED,
  SCALE,
  SCALED,
  ADDED,
  SLOPE,
  ACTIVATED,
  MEANS,
  MAXIMA,
  JOINED,
  SIGNS,
  FILTER2,
  THRESHOLD,
  BITS,
  POOLED,
  UNPACKED,
  FILTER3,
  OTHER,
  TENSORS
};
enum { NODES = 14, CHANNELS = 64, SIZE = 6, BATCHES = 2 };

static struct {
  struct host_graph graph;
  TfLiteContext context;
  TfLiteTensor tensors[TENSORS];
  TfLiteNode nodes[NODES + 1]; /* the last one is the delegate's */
  TfLiteRegistration registrations[NODES + 1];
  TfLiteDelegateParams params;
  int node_count, messages;
  char message[512];
} host;

static const int outputs[] = {ACTIVATED, UNPACKED, OTHER};

static TfLiteIntArray *array(int size, const int *values) {
  TfLiteIntArray *a = __real_malloc(sizeof *a + (size_t)size * sizeof(int));
  a->size = size;
  if (size) memcpy(a->data, values, (size_t)size * sizeof(int));
  return a;
}

static void note(const char *message) {
  host.messages++;
  snprintf(host.message, sizeof host.message, "%s", message);
}

static void report(TfLiteContext *context, const char *message, ...) {
  (void)context;
  char text[512];
  va_list arguments;
  va_start(arguments, message);
  vsnprintf(text, sizeof text, message, arguments);
  va_end(arguments);
  note(text);
}

/* Takes dims over, as TFLite does, and makes room. */
static TfLiteStatus resize(TfLiteContext *context, TfLiteTensor *tensor, TfLiteIntArray *dims) {
  (void)context;
  free(tensor->dims);
  tensor->dims = dims;
  tensor->bytes = 4;
  for (int i = 0; i < dims->size; i++) tensor->bytes *= (size_t)dims->data[i];
  __real_free(tensor->data.data);
  tensor->data.data = __real_calloc(1, tensor->bytes);
  return kTfLiteOk;
}

static TfLiteStatus replace(TfLiteContext *context, TfLiteRegistration registration, const TfLiteIntArray *nodes,
                            TfLiteDelegate *delegate) {
  if (nodes->size != NODES) {
    fprintf(stderr, "%d of %d operators are taken\n", nodes->size, NODES);
    return kTfLiteError;
  }
  host.params =
      (TfLiteDelegateParams){delegate, array(NODES, nodes->data), array(2, (int[]){X, WORDS}), array(3, outputs)};
  host.registrations[NODES] = registration;
  host.nodes[NODES].user_data = registration.init(context, (const char *)&host.params, sizeof host.params);
  return kTfLiteOk;
}

static void free_tensor(TfLiteTensor *t) {
  free(t->dims);
  __real_free(t->data.data);
}

static void tensor(int index, TfLiteType type, bool constant, int rank, const int *dims) {
  TfLiteTensor *t = &host.tensors[index];
  free_tensor(t);
  *t = (TfLiteTensor){
      .type = type, .allocation_type = constant ? kTfLiteMmapRo : (TfLiteAllocationType)2, .name = "tensor"};
  resize(NULL, t, array(rank, dims));
  for (size_t i = 0; i < t->bytes / 4; i++) {
    const uint32_t bits = (uint32_t)(i + 1) * 2654435761u;
    if (type == kTfLiteFloat32)
      t->data.f[i] = (float)((int)(bits >> 20) - 2048) / 512.0f;
    else
      t->data.i32[i] = (int32_t)bits;
  }
}

static void image(int index, TfLiteType type, int size, int channels) {
  tensor(index, type, false, 4, (int[]){1, size, size, channels});
}

static void set_inputs(int batch) {
  tensor(X, kTfLiteFloat32, false, 4, (int[]){batch, SIZE, SIZE, CHANNELS});
  tensor(WORDS, kTfLiteInt32, false, 4, (int[]){batch, SIZE, SIZE, 2});
}

static void node(int builtin, const char *custom, int inputs, const int *in, int out) {
  host.nodes[host.node_count] = (TfLiteNode){.inputs = array(inputs, in), .outputs = array(1, &out)};
  host.registrations[host.node_count++] = (TfLiteRegistration){.builtin_code = builtin, .custom_name = custom};
}

static void options(int count, const char *const *keys, const int *values) {
  static uint8_t maps[4][256];
  static int used;
  uint8_t *out = maps[used++ % 4];
  const int size = flexbuffer(out, count, keys, values);
  host.nodes[host.node_count - 1].custom_initial_data = out;
  host.nodes[host.node_count - 1].custom_initial_data_size = size;
}

static void convolve(int in, int filter, int multiplier, int bias, int threshold, int out, int channels) {
  static const char *const keys[] = {
      "channels_in", "dilation_height_factor", "dilation_width_factor", "fused_activation_function", "pad_values",
      "padding",     "stride_height",          "stride_width"};
  node(kTfLiteBuiltinCustom, "LceBconv2d", 5, (int[]){in, filter, multiplier, bias, threshold}, out);
  options(8, keys, (int[]){channels, 1, 1, 0, 0, 0, 1, 1});
}

/* Packed signs with a border of their own and with one that has to be copied, copies of channels, pools, slices. */
static void make_host(void) {
  static const char *const keys[] = {"filter_height", "filter_width", "padding", "stride_height", "stride_width"};
  static TfLiteArithmeticParams none = {kTfLiteActNone};
  static TfLiteConcatenationParams last_axis = {3, kTfLiteActNone};
  static TfLitePoolParams halves = {kTfLitePaddingValid, 2, 2, 2, 2, kTfLiteActNone};
  memset(&host, 0, sizeof host);
  host.graph = (struct host_graph){.nodes = host.nodes, .registrations = host.registrations};
  host.context = (TfLiteContext){.tensors_size = TENSORS,
                                 .tensors = host.tensors,
                                 .impl_ = &host,
                                 .ResizeTensor = resize,
                                 .ReportError = report,
                                 .GetExecutionPlan = get_plan,
                                 .GetNodeAndRegistration = get_node,
                                 .recommended_num_threads = 1,
                                 .ReplaceNodeSubsetsWithDelegateKernels = replace};
  set_inputs(1);
  image(PACKED, kTfLiteInt32, SIZE, 2);
  image(NARROW, kTfLiteFloat32, SIZE, 16);
  for (int t = TILED; t <= ACTIVATED; t++)
    if (t != SCALE && t != SLOPE) image(t, kTfLiteFloat32, SIZE, CHANNELS);
  image(MEANS, kTfLiteFloat32, SIZE / 2, CHANNELS);
  image(MAXIMA, kTfLiteFloat32, SIZE / 2, CHANNELS);
  image(JOINED, kTfLiteFloat32, SIZE / 2, 2 * CHANNELS);
  image(SIGNS, kTfLiteInt32, SIZE / 2, 4);
  image(BITS, kTfLiteInt32, SIZE / 2, 1);
  image(POOLED, kTfLiteInt32, SIZE / 2 - 1, 1);
  image(UNPACKED, kTfLiteFloat32, SIZE / 2 - 1, 32);
  image(OTHER, kTfLiteFloat32, SIZE, 16);
  tensor(FILTER, kTfLiteInt32, true, 4, (int[]){16, 3, 3, 2});
  tensor(FILTER2, kTfLiteInt32, true, 4, (int[]){32, 3, 3, 4});
  tensor(FILTER3, kTfLiteInt32, true, 4, (int[]){16, 3, 3, 2});
  tensor(MULTIPLIER, kTfLiteFloat32, true, 1, (int[]){16});
  tensor(BIAS, kTfLiteFloat32, true, 1, (int[]){16});
  tensor(THRESHOLD, kTfLiteInt32, true, 1, (int[]){32});
  for (int i = 0; i < 32; i++) host.tensors[THRESHOLD].data.i32[i] = 560 + i;
  tensor(TIMES, kTfLiteInt32, true, 1, (int[]){4});
  memcpy(host.tensors[TIMES].data.i32, (int[]){1, 1, 1, 4}, 4 * sizeof(int));
  tensor(SCALE, kTfLiteFloat32, true, 1, (int[]){CHANNELS});
  tensor(SLOPE, kTfLiteFloat32, true, 3, (int[]){1, 1, CHANNELS});
  node(kTfLiteBuiltinCustom, "LceQuantize", 1, (int[]){X}, PACKED);
  convolve(PACKED, FILTER, MULTIPLIER, BIAS, -1, NARROW, CHANNELS);
  node(kTfLiteBuiltinTile, NULL, 2, (int[]){NARROW, TIMES}, TILED);
  node(kTfLiteBuiltinMul, NULL, 2, (int[]){TILED, SCALE}, SCALED);
  node(kTfLiteBuiltinAdd, NULL, 2, (int[]){SCALED, X}, ADDED);
  host.nodes[3].builtin_data = host.nodes[4].builtin_data = &none;
  node(kTfLiteBuiltinPrelu, NULL, 2, (int[]){ADDED, SLOPE}, ACTIVATED);
  node(kTfLiteBuiltinAveragePool2d, NULL, 1, (int[]){ACTIVATED}, MEANS);
  node(kTfLiteBuiltinMaxPool2d, NULL, 1, (int[]){ACTIVATED}, MAXIMA);
  host.nodes[6].builtin_data = host.nodes[7].builtin_data = &halves;
  node(kTfLiteBuiltinConcatenation, NULL, 2, (int[]){MEANS, MAXIMA}, JOINED);
  host.nodes[8].builtin_data = &last_axis;
  node(kTfLiteBuiltinCustom, "LceQuantize", 1, (int[]){JOINED}, SIGNS);
  convolve(SIGNS, FILTER2, -1, -1, THRESHOLD, BITS, 2 * CHANNELS);
  node(kTfLiteBuiltinCustom, "LceBMaxPool2d", 1, (int[]){BITS}, POOLED);
  options(5, keys, (int[]){2, 2, 1, 1, 1});
  node(kTfLiteBuiltinCustom, "LceDequantize", 1, (int[]){POOLED}, UNPACKED);
  convolve(WORDS, FILTER3, MULTIPLIER, BIAS, -1, OTHER, CHANNELS);
  host.graph.plan = array(NODES, (int[]){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13});
}

static void free_host(void) {
  for (int i = 0; i < TENSORS; i++) free_tensor(&host.tensors[i]);
  for (int i = 0; i < host.node_count; i++) {
    free(host.nodes[i].inputs);
    free(host.nodes[i].outputs);
  }
  free(host.graph.plan);
  free(host.params.nodes_to_replace);
  free(host.params.input_tensors);
  free(host.params.output_tensors);
}

/* ---- Attempts ---- */

static struct {
  int count;
  const char *keys[4], *values[4];
} given;

static char *expected[BATCHES + 1][3]; /* outputs of a run without a failure */

static bool complain(const char *what) {
  fprintf(stderr, "allocation %d fails: %s (%s)\n", fails_at, what, host.message);
  return false;
}

/* Whether a failure came with a message that begins as all of them. */
static bool explained(void) {
  const bool good = host.messages > 0 && strncmp(host.message, "larq-rep: ", 10) == 0;
  host.messages = 0;
  return good || complain("no message says why");
}

static TfLiteStatus prepare(void) {
  watching = true;
  const TfLiteStatus status = host.registrations[NODES].prepare(&host.context, &host.nodes[NODES]);
  watching = false;
  return status;
}

static bool invoke(int batch) {
  for (int i = 0; i < 3; i++) memset(host.tensors[outputs[i]].data.data, 0xff, host.tensors[outputs[i]].bytes);
  watching = true;
  const TfLiteStatus status = host.registrations[NODES].invoke(&host.context, &host.nodes[NODES]);
  watching = false;
  if (status != kTfLiteOk) return complain("the run fails");
  for (int i = 0; i < 3; i++) {
    const TfLiteTensor *t = &host.tensors[outputs[i]];
    char **of_batch = &expected[batch][i];
    if (!*of_batch) {
      *of_batch = __real_malloc(t->bytes);
      memcpy(*of_batch, t->data.data, t->bytes);
    }
    if (memcmp(*of_batch, t->data.data, t->bytes)) return complain("other results");
  }
  return true;
}

/* Prepares and runs, with one image and with two; after a failure once more, as a program may. */
static bool use_kernel(bool *failed) {
  for (int batch = 1; batch <= BATCHES; batch++) {
    set_inputs(batch);
    if (prepare() != kTfLiteOk) {
      *failed = true;
      if (!explained()) return false;
      if (prepare() != kTfLiteOk) return explained(); /* nothing was planned */
    }
    if (!invoke(batch)) return false;
  }
  return true;
}

static bool attempt(bool delegate_first, bool *failed) {
  make_host();
  *failed = false;
  allocations = live_count = 0;
  watching = true;
  TfLiteDelegate *delegate = tflite_plugin_create_delegate(given.keys, given.values, (size_t)given.count, note);
  watching = false;
  bool good = true;
  if (!delegate) {
    *failed = true;
    good = explained();
  } else {
    watching = true;
    const TfLiteStatus status = delegate->Prepare(&host.context, delegate);
    watching = false;
    if (status != kTfLiteOk) {
      *failed = true;
      good = explained();
    } else {
      good = use_kernel(failed);
      if (delegate_first) {
        tflite_plugin_destroy_delegate(delegate);
        delegate = NULL;
        if (good && !*failed) {
          *failed = prepare() != kTfLiteOk;
          good = *failed ? explained() : invoke(BATCHES);
        }
      }
      host.registrations[NODES].free(&host.context, host.nodes[NODES].user_data);
    }
    tflite_plugin_destroy_delegate(delegate);
  }
  free_host();
  if (live_count > 0) good = complain("memory is left behind");
  return good;
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc && i < 4; i++) {
    given.keys[given.count] = strtok(argv[i], "=");
    given.values[given.count++] = strtok(NULL, "=");
  }
  bool good = true, failed = true;
  fails_at = -1;
  for (int order = 0; order < 2 && good; order++) good = attempt(order, &failed) && (!failed || complain("without"));
  const int count = allocations;
  int failures = 0;
  for (int order = 0; order < 2; order++)
    for (fails_at = 1; fails_at <= count && good; fails_at++) {
      good = attempt(order, &failed);
      failures += failed;
    }
  for (int batch = 1; batch <= BATCHES; batch++)
    for (int i = 0; i < 3; i++) __real_free(expected[batch][i]);
  printf("%d allocations, %d failures: %s\n", count, failures, good ? "passed" : "failed");
  return !good;
}
