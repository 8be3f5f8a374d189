/* Random convolution blocks in all implementations, against loops over single bits, without any runtime around them.
 *
 *   x -> LceQuantize -> LceBconv2d -> TILE -> TILE -> ADD constant -> ADD shortcut -> PRELU -> output
 *                                                                                     output -> LceQuantize -> signs
 * or, in half of the cases, with integers as the shortcut and as one more output:
 *   integers -> DEQUANTIZE -> shortcut; output -> QUANTIZE -> levels
 *
 * Every tensor ends at a page that cannot be touched, or begins behind one, so that a read or write beyond it ends
 * the program. Being plain C, it also runs under qemu-user and with the compilers' sanitizers:
 *   blocks [cases] [threads] [seed]
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../src/partition.h"
#include "../src/plan.h"
#include "../src/threads.h"
#include "host.h"

enum {
  X,
  PACKED,
  FILTER,
  MULTIPLIER,
  BIAS,
  SUM,
  TIMES,
  TILED,
  TIMES_AGAIN,
  REPEATED,
  SHIFT,
  SHIFTED,
  INTEGERS,
  SHORTCUT,
  ADDED,
  SLOPE,
  OUT,
  SIGNS,
  LEVELS,
  TENSORS
};
enum { NODES = 10, MOST_FILTERS = 3 * 200 };

static uint64_t state;

static int below(int n) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (int)((state >> 33) % (uint64_t)n);
}

static float noise(void) { return (float)(below(2001) - 1000) / 256.0f; }

/* ---- Memory between pages that cannot be touched ---- */

struct guarded {
  char *pages;
  size_t bytes;
  void *data;
};

static struct guarded guard(size_t bytes, bool at_end) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (bytes + page - 1) / page * page + (bytes == 0) * page;
  struct guarded g = {.bytes = used + 2 * page};
  g.pages = mmap(NULL, g.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (g.pages == MAP_FAILED || mprotect(g.pages, page, PROT_NONE) || mprotect(g.pages + page + used, page, PROT_NONE)) {
    perror("mmap");
    exit(1);
  }
  g.data = g.pages + page + (at_end ? used - bytes : 0);
  return g;
}

/* ---- A host with one graph ---- */

struct host {
  struct host_graph graph;
  TfLiteContext context;
  TfLiteTensor tensors[TENSORS];
  struct guarded memory[TENSORS];
  TfLiteNode nodes[NODES];
  TfLiteRegistration registrations[NODES];
  bool at_end;
};

static TfLiteStatus resize(TfLiteContext *context, TfLiteTensor *tensor, TfLiteIntArray *dims) {
  struct host *host = context->impl_;
  const bool same = dims->size == 4 && memcmp(dims->data, tensor->dims->data, 4 * sizeof(int)) == 0;
  free(dims);
  if (!same || tensor < host->tensors) {
    fprintf(stderr, "an output has an unexpected shape\n");
    exit(1);
  }
  return kTfLiteOk;
}

static void report(TfLiteContext *context, const char *message, ...) {
  (void)context;
  va_list arguments;
  va_start(arguments, message);
  vfprintf(stderr, message, arguments);
  va_end(arguments);
  fputc('\n', stderr);
}

static void tensor(struct host *host, int index, TfLiteType type, bool constant, int rank, const int *dims) {
  size_t bytes = type == kTfLiteInt8 ? 1 : 4;
  for (int i = 0; i < rank; i++) bytes *= (size_t)dims[i];
  host->memory[index] = guard(bytes, host->at_end);
  host->tensors[index] = (TfLiteTensor){.type = type,
                                        .dims = int_array(rank, dims),
                                        .bytes = bytes,
                                        .name = "tensor",
                                        .allocation_type = constant ? kTfLiteMmapRo : (TfLiteAllocationType)2};
  host->tensors[index].data.data = host->memory[index].data;
  if (type == kTfLiteFloat32)
    for (size_t i = 0; i < bytes / 4; i++) host->tensors[index].data.f[i] = noise();
  if (type != kTfLiteInt8) return;
  static const float scales[] = {0.0473f, 0.25f, 3};
  host->tensors[index].params = (TfLiteQuantizationParams){scales[below(3)], below(256) - 128};
  for (size_t i = 0; i < bytes; i++) ((int8_t *)host->tensors[index].data.data)[i] = (int8_t)(below(256) - 128);
}

static void node(struct host *host, int index, int builtin, const char *custom, int inputs, const int *in, int out) {
  host->nodes[index] = (TfLiteNode){.inputs = int_array(inputs, in), .outputs = int_array(1, &out)};
  host->registrations[index] = (TfLiteRegistration){.builtin_code = builtin, .custom_name = custom};
}

struct block {
  int n, h, w, channels, filters, groups, kh, kw, sh, sw, dh, dw, same, pad_values, oh, ow, top, left;
  bool integers;
  int times[2]; /* that the results are repeated, and these again */
};

static bool sign_bit(const struct host *host, int index, size_t pixel, int words, int c) {
  return host->tensors[index].data.i32[pixel * (size_t)words + (size_t)(c / 32)] >> (c % 32) & 1;
}

/* One output channel of one pixel, from single bits. */
static float expected_sum(const struct host *host, const struct block *b, int n, int y, int x, int o) {
  const int words = (b->channels + 31) / 32, per_group = b->channels / b->groups, group = o / (b->filters / b->groups);
  int differing = 0, outside = 0;
  for (int ky = 0; ky < b->kh; ky++)
    for (int kx = 0; kx < b->kw; kx++) {
      const int iy = y * b->sh - b->top + ky * b->dh, ix = x * b->sw - b->left + kx * b->dw;
      const bool inside = iy >= 0 && iy < b->h && ix >= 0 && ix < b->w;
      for (int c = 0; c < per_group; c++) {
        const bool weight = sign_bit(host, FILTER, (size_t)((o * b->kh + ky) * b->kw + kx), words / b->groups, c);
        const bool input =
            inside &&
            host->tensors[X].data.f[((size_t)(n * b->h + iy) * (size_t)b->w + (size_t)ix) * (size_t)b->channels +
                                    (size_t)(group * per_group + c)] < 0;
        differing += weight != input;
        if (!inside) outside += weight ? -1 : 1;
      }
    }
  const double K = (double)b->kh * b->kw * per_group;
  const float multiplier = host->tensors[MULTIPLIER].data.f[o], bias = host->tensors[BIAS].data.f[o];
  volatile float product = (float)(2 * differing) * -multiplier; /* volatile: no contraction of product and sum */
  volatile float sum = product + (float)((double)bias + K * (double)multiplier);
  if (b->same && !b->pad_values) {
    volatile float border = -multiplier * (float)outside;
    sum = sum + border;
  }
  return sum;
}

static int level(const struct host *host, int index, size_t at) {
  return ((const int8_t *)host->tensors[index].data.data)[at];
}

/* The integer of a number: its product with the inverse of the scale, rounded half to even. */
static int expected_level(const TfLiteQuantizationParams *params, float v) {
  volatile float inverse = 1 / params->scale, product = v * inverse;
  const double found = nearbyint((double)product) + params->zero_point;
  return (int)fmax(-128, fmin(127, found));
}

static int check(struct host *host, const struct block *b, const char *name) {
  const int channels = b->filters * b->times[0] * b->times[1], words = (channels + 31) / 32;
  float sums[MOST_FILTERS];
  for (int n = 0, pixel = 0; n < b->n; n++)
    for (int y = 0; y < b->oh; y++)
      for (int x = 0; x < b->ow; x++, pixel++)
        for (int c = 0; c < channels; c++) {
          const size_t at = (size_t)pixel * (size_t)channels + (size_t)c;
          if (c < b->filters) sums[c] = expected_sum(host, b, n, y, x, c);
          volatile float v = sums[c % b->filters];
          v = v + host->tensors[SHIFT].data.f[c];
          if (b->integers) {
            const TfLiteQuantizationParams *params = &host->tensors[INTEGERS].params;
            volatile float real = (float)(level(host, INTEGERS, at) - params->zero_point) * params->scale;
            v = v + real;
          } else {
            v = v + host->tensors[SHORTCUT].data.f[at];
          }
          if (v < 0) v = v * host->tensors[SLOPE].data.f[c];
          const int integer = expected_level(&host->tensors[LEVELS].params, v);
          if (b->integers && level(host, LEVELS, at) != integer) {
            fprintf(stderr, "%s: image %d, pixel (%d, %d), channel %d: expected level %d of %g, found %d\n", name, n, y,
                    x, c, integer, (double)v, level(host, LEVELS, at));
            return 1;
          }
          const float found = host->tensors[OUT].data.f[at];
          if (found != v || sign_bit(host, SIGNS, (size_t)pixel, words, c) != (v < 0)) {
            fprintf(stderr, "%s: image %d, pixel (%d, %d), channel %d: expected %g, found %g\n", name, n, y, x, c,
                    (double)v, (double)found);
            return 1;
          }
        }
  return 0;
}

static void random_block(struct block *b) {
  static const int channels[] = {1, 3, 16, 31, 32, 33, 64, 100, 128, 160, 1024},
                   filters[] = {1, 4, 16, 17, 32, 48, 64, 70, 128, 200};
  static const int kernels[] = {1, 1, 2, 3, 3, 3, 5, 7};
  /* Such that most taps never meet the image. */
  static const int far[] = {4, 5, 9, 100, 16000, 16383, 32000, (1 << 15) - 1};
  b->groups = below(4) ? 1 : 1 + below(3);
  b->channels = b->groups > 1 ? 32 * b->groups * (1 + below(3)) : channels[below(11)];
  b->filters = b->groups * filters[below(10)];
  b->times[0] = below(3) ? 1 : 1 + below(3);
  b->times[1] = below(3) ? 1 : 1 + below(3);
  b->kh = kernels[below(8)];
  b->kw = kernels[below(8)];
  b->sh = 1 + below(3);
  b->sw = 1 + below(3);
  b->dh = below(3) ? 1 : 1 + below(3);
  b->dw = below(3) ? 1 : 1 + below(3);
  b->same = below(3) > 0;
  if (b->same && below(4) == 0) b->dh = far[below(8)];
  if (b->same && below(4) == 0) b->dw = far[below(8)];
  if (b->same && below(8) == 0) b->sh = far[below(8)];
  if (b->same && below(8) == 0) b->sw = far[below(8)];
  b->pad_values = below(2);
  b->integers = below(2);
  b->n = 1 + below(2);
  const int height = (b->kh - 1) * b->dh + 1, width = (b->kw - 1) * b->dw + 1;
  b->h = b->same ? 1 + below(9) : height + below(6);
  b->w = b->same ? 1 + below(9) : width + below(6);
  const int total_h = b->same ? ((b->h - 1) / b->sh) * b->sh + height - b->h : 0;
  const int total_w = b->same ? ((b->w - 1) / b->sw) * b->sw + width - b->w : 0;
  b->top = total_h > 0 ? total_h / 2 : 0;
  b->left = total_w > 0 ? total_w / 2 : 0;
  b->oh = b->same ? (b->h - 1) / b->sh + 1 : (b->h - height) / b->sh + 1;
  b->ow = b->same ? (b->w - 1) / b->sw + 1 : (b->w - width) / b->sw + 1;
}

static int run_case(int number, struct threads *threads, int num_threads) {
  struct block b;
  random_block(&b);
  struct host host = {.at_end = number % 2};
  host.graph = (struct host_graph){.nodes = host.nodes, .registrations = host.registrations};
  host.context = (TfLiteContext){.tensors_size = TENSORS,
                                 .tensors = host.tensors,
                                 .impl_ = &host,
                                 .ResizeTensor = resize,
                                 .ReportError = report,
                                 .GetNodeAndRegistration = get_node,
                                 .recommended_num_threads = num_threads};
  const int words = (b.channels + 31) / 32;
  const int in[] = {b.n, b.h, b.w, b.channels}, packed[] = {b.n, b.h, b.w, words};
  const int tiled = b.filters * b.times[0], channels = tiled * b.times[1];
  const int sum[] = {b.n, b.oh, b.ow, b.filters}, once[] = {b.n, b.oh, b.ow, tiled};
  const int out[] = {b.n, b.oh, b.ow, channels}, signs[] = {b.n, b.oh, b.ow, (channels + 31) / 32};
  const int filter[] = {b.filters, b.kh, b.kw, words / b.groups};
  tensor(&host, X, kTfLiteFloat32, false, 4, in);
  tensor(&host, PACKED, kTfLiteInt32, false, 4, packed);
  tensor(&host, FILTER, kTfLiteInt32, true, 4, filter);
  tensor(&host, MULTIPLIER, kTfLiteFloat32, true, 1, &b.filters);
  tensor(&host, BIAS, kTfLiteFloat32, true, 1, &b.filters);
  tensor(&host, SHIFT, kTfLiteFloat32, true, 1, &channels);
  tensor(&host, SLOPE, kTfLiteFloat32, true, 3, (int[]){1, 1, channels});
  tensor(&host, INTEGERS, kTfLiteInt8, false, 4, out);
  tensor(&host, SHORTCUT, kTfLiteFloat32, false, 4, out);
  tensor(&host, SUM, kTfLiteFloat32, false, 4, sum);
  tensor(&host, TILED, kTfLiteFloat32, false, 4, once);
  tensor(&host, REPEATED, kTfLiteFloat32, false, 4, out);
  for (int i = 0; i < 2; i++) {
    tensor(&host, i ? TIMES_AGAIN : TIMES, kTfLiteInt32, true, 1, (int[]){4});
    memcpy(host.tensors[i ? TIMES_AGAIN : TIMES].data.i32, (int[]){1, 1, 1, b.times[i]}, 4 * sizeof(int));
  }
  tensor(&host, SHIFTED, kTfLiteFloat32, false, 4, out);
  tensor(&host, ADDED, kTfLiteFloat32, false, 4, out);
  tensor(&host, OUT, kTfLiteFloat32, false, 4, out);
  tensor(&host, SIGNS, kTfLiteInt32, false, 4, signs);
  tensor(&host, LEVELS, kTfLiteInt8, false, 4, out);
  const int per_group = b.channels / b.groups;
  for (size_t i = 0; i < host.tensors[FILTER].bytes / 4; i++)
    for (int bit = 0; bit < 32; bit++)
      if ((int)(i % (size_t)filter[3]) * 32 + bit < per_group)
        host.tensors[FILTER].data.i32[i] =
            (int32_t)((uint32_t)host.tensors[FILTER].data.i32[i] | (uint32_t)below(2) << bit);
  static const TfLiteArithmeticParams none = {kTfLiteActNone};
  static const char *const keys[] = {
      "channels_in", "dilation_height_factor", "dilation_width_factor", "fused_activation_function", "pad_values",
      "padding",     "stride_height",          "stride_width"};
  const int values[] = {b.channels, b.dh, b.dw, 0, b.pad_values, !b.same, b.sh, b.sw};
  uint8_t options[512];
  const int size = flexbuffer(options, 8, keys, values);
  node(&host, 0, kTfLiteBuiltinCustom, "LceQuantize", 1, (int[]){X}, PACKED);
  node(&host, 1, kTfLiteBuiltinCustom, "LceBconv2d", 5, (int[]){PACKED, FILTER, MULTIPLIER, BIAS, -1}, SUM);
  host.nodes[1].custom_initial_data = options;
  host.nodes[1].custom_initial_data_size = size;
  node(&host, 2, kTfLiteBuiltinTile, NULL, 2, (int[]){SUM, TIMES}, TILED);
  node(&host, 3, kTfLiteBuiltinTile, NULL, 2, (int[]){TILED, TIMES_AGAIN}, REPEATED);
  node(&host, 4, kTfLiteBuiltinAdd, NULL, 2, (int[]){REPEATED, SHIFT}, SHIFTED);
  node(&host, 5, kTfLiteBuiltinAdd, NULL, 2, (int[]){SHORTCUT, SHIFTED}, ADDED);
  host.nodes[4].builtin_data = host.nodes[5].builtin_data = (void *)(uintptr_t)&none;
  node(&host, 6, kTfLiteBuiltinPrelu, NULL, 2, (int[]){ADDED, SLOPE}, OUT);
  node(&host, 7, kTfLiteBuiltinCustom, "LceQuantize", 1, (int[]){OUT}, SIGNS);
  node(&host, 8, kTfLiteBuiltinDequantize, NULL, 1, (int[]){INTEGERS}, SHORTCUT);
  node(&host, 9, kTfLiteBuiltinQuantize, NULL, 1, (int[]){OUT}, LEVELS);
  TfLiteDelegateParams params = {
      .nodes_to_replace = int_array(b.integers ? NODES : 8, (int[]){0, 1, 2, 3, 4, 8, 5, 6, 7, 9}),
      .input_tensors = int_array(2, (int[]){X, b.integers ? INTEGERS : SHORTCUT}),
      .output_tensors = int_array(b.integers ? 3 : 2, (int[]){OUT, SIGNS, LEVELS})};
  if (!b.integers) memcpy(params.nodes_to_replace->data, (int[]){0, 1, 2, 3, 4, 5, 6, 7}, 8 * sizeof(int));
  int failed = 0;
  for (const struct kernels *const *k = all_kernels; *k && !failed; k++) {
    if (!(*k)->supported()) continue;
    /* A small cache has turns of a row, and blocks of weights. */
    struct shared shared = {.options = {.kernels = *k, .fuse = true, .cache_kb = number / 2 % 2}, .threads = threads};
    struct partition partition = {.shared = &shared, .options = &shared.options};
    memset(host.tensors[OUT].data.data, 0xff, host.tensors[OUT].bytes);
    memset(host.tensors[SIGNS].data.data, 0xff, host.tensors[SIGNS].bytes);
    memset(host.tensors[LEVELS].data.data, 0xff, host.tensors[LEVELS].bytes);
    partition.plan = make_plan(&host.context, &params);
    failed = !partition.plan || prepare_partition(&host.context, &partition) != kTfLiteOk ||
             partition.plan->step_count != 2 || invoke_partition(&host.context, &partition) != kTfLiteOk ||
             check(&host, &b, (*k)->name);
    free_plan(partition.plan);
    free(partition.memory);
    free(partition.scratch);
  }
  for (int i = 0; i < TENSORS; i++) {
    munmap(host.memory[i].pages, host.memory[i].bytes);
    free(host.tensors[i].dims);
  }
  for (int i = 0; i < NODES; i++) {
    free(host.nodes[i].inputs);
    free(host.nodes[i].outputs);
  }
  free(params.nodes_to_replace);
  free(params.input_tensors);
  free(params.output_tensors);
  if (failed)
    fprintf(stderr, "case %d: %dx%dx%dx%d, %d filters %dx%d, %d groups, strides %d %d, dilations %d %d, %s, pad %d\n",
            number, b.n, b.h, b.w, b.channels, b.filters, b.kh, b.kw, b.groups, b.sh, b.sw, b.dh, b.dw,
            b.same ? "SAME" : "VALID", b.pad_values);
  return failed;
}

int main(int argc, char **argv) {
  const int cases = argc > 1 ? atoi(argv[1]) : 200, num_threads = argc > 2 ? atoi(argv[2]) : 1;
  state = argc > 3 ? (uint64_t)atoi(argv[3]) : 1;
  struct threads *threads = make_threads();
  int failed = 0;
  for (int i = 0; i < cases && !failed; i++) failed = run_case(i, threads, num_threads);
  stop_threads(threads);
  char implementations[128];
  list_kernels(implementations, sizeof implementations);
  printf("%d cases of %s, %d threads: %s\n", cases, implementations, num_threads, failed ? "failed" : "passed");
  return failed;
}
