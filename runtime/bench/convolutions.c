/* Binary convolutions of all implementations against the peak of xor and popcount on this processor.
 *
 * One thread; each figure is the best of many runs, peak and convolutions taking turns, so that a busy machine
 * disturbs all of them alike. A convolution includes reading packed signs, the border of zero padding, scaling, and
 * storing floats or 8-bit integers. One MAC is one multiplication and addition of +1 and -1.
 * The peak is that of comparing, counting and adding word by word. AVX-512 counts two words at once, the AVX2 kernels
 * look sums of four bits up, and AMX multiplies: they may pass it.
 * Where few bits are counted for an output, memory is the limit: "x memory" is the time against that of storing one
 * number all over the output.
 *   make bench && build/native/convolutions [implementation ...]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "../src/partition.h"
#include "../src/plan.h"

enum { ROUNDS = 200, PEAK_TURNS = 20000 };

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static volatile uint64_t sink;

/* Each peak loop keeps everything in registers: per turn `width` bits are compared, counted and added. */
#define PEAK(name, target_name, type, count, width, load, add_count, fold) \
  __attribute__((target(target_name))) static double name(void) {          \
    type sum[count], a[count];                                             \
    for (int i = 0; i < count; i++) sum[i] = a[i] = load(i);               \
    type b = load(77);                                                     \
    for (int t = 0; t < PEAK_TURNS; t++) {                                 \
      __asm__ volatile("" : "+x"(b));                                      \
      for (int i = 0; i < count; i++) sum[i] = add_count(sum[i], a[i], b); \
    }                                                                      \
    for (int i = 0; i < count; i++) sink += (uint64_t)fold(sum[i]);        \
    return (double)PEAK_TURNS * count * width;                             \
  }

#if defined(__x86_64__)
#define LOAD512(i) _mm512_set1_epi32(i)
#define COUNT512(s, a, b) _mm512_add_epi32(s, _mm512_popcnt_epi32(_mm512_xor_si512(a, b)))
#define FOLD512(s) _mm512_reduce_add_epi32(s)
PEAK(peak_avx512, "avx512f,avx512vpopcntdq", __m512i, 12, 512, LOAD512, COUNT512, FOLD512)

#define LOAD256(i) _mm256_set1_epi32(i)
__attribute__((target("avx2"), always_inline)) static inline __m256i count256(__m256i s, __m256i a, __m256i b) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m256i low = _mm256_set1_epi8(15), x = _mm256_xor_si256(a, b);
  s = _mm256_add_epi8(s, _mm256_shuffle_epi8(table, _mm256_and_si256(x, low)));
  return _mm256_add_epi8(s, _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), low)));
}
#define FOLD256(s) _mm256_extract_epi32(s, 0)
PEAK(peak_avx2, "avx2", __m256i, 4, 256, LOAD256, count256, FOLD256)

__attribute__((target("popcnt"))) static double peak_popcnt(void) {
  uint64_t sum[4] = {0}, a[4] = {1, 2, 3, 4}, b = 77;
  for (int t = 0; t < PEAK_TURNS; t++) {
    __asm__ volatile("" : "+r"(b));
    for (int i = 0; i < 4; i++) {
      __asm__ volatile("" : "+r"(a[i])); /* no vectors here */
      sum[i] += (uint64_t)__builtin_popcountll(a[i] ^ b);
    }
  }
  for (int i = 0; i < 4; i++) sink += sum[i];
  return (double)PEAK_TURNS * 4 * 64;
}
#elif defined(__aarch64__)
static double peak_neon(void) {
  uint8x16_t sum[12], a[12], b = vdupq_n_u8(77);
  for (int i = 0; i < 12; i++) sum[i] = a[i] = vdupq_n_u8((uint8_t)i);
  for (int t = 0; t < PEAK_TURNS; t++) {
    __asm__ volatile("" : "+w"(b));
    for (int i = 0; i < 12; i++) sum[i] = vaddq_u8(sum[i], vcntq_u8(veorq_u8(a[i], b)));
  }
  for (int i = 0; i < 12; i++) sink += vaddlvq_u8(sum[i]);
  return (double)PEAK_TURNS * 12 * 128;
}
#endif

static double (*peak_of(const char *name))(void) {
#if defined(__x86_64__)
  if (strcmp(name, "avx512") == 0 || strcmp(name, "amx") == 0) return peak_avx512;
  if (strcmp(name, "avx2") == 0) return peak_avx2;
  if (strcmp(name, "popcnt") == 0) return peak_popcnt;
#elif defined(__aarch64__)
  if (strcmp(name, "neon") == 0) return peak_neon;
#endif
  return NULL;
}

/* ---- One convolution as a partition of its own, without a runtime around it ---- */

static TfLiteStatus keep_shape(TfLiteContext *context, TfLiteTensor *tensor, TfLiteIntArray *dims) {
  (void)context;
  free(tensor->dims);
  tensor->dims = dims;
  tensor->bytes = (size_t)dims->data[0] * (size_t)dims->data[1] * (size_t)dims->data[2] * (size_t)dims->data[3] * 4;
  tensor->data.data = realloc(tensor->data.data, tensor->bytes);
  return kTfLiteOk;
}

static void report(TfLiteContext *context, const char *message, ...) {
  (void)context;
  fprintf(stderr, "%s\n", message);
}

static TfLiteIntArray *array(int size, const int *values) {
  TfLiteIntArray *a = malloc(sizeof *a + (size_t)size * sizeof(int));
  a->size = size;
  memcpy(a->data, values, (size_t)size * sizeof(int));
  return a;
}

static TfLiteTensor tensor(TfLiteType type, TfLiteAllocationType allocation, int rank, const int *dims) {
  size_t count = 1;
  for (int i = 0; i < rank; i++) count *= (size_t)dims[i];
  TfLiteTensor t = {.type = type, .dims = array(rank, dims), .allocation_type = allocation, .bytes = count * 4};
  uint32_t *data = t.data.data = malloc(t.bytes);
  for (size_t i = 0; i < count; i++) data[i] = (uint32_t)rand() * 2654435761u;
  if (type == kTfLiteFloat32)
    for (size_t i = 0; i < count; i++) t.data.f[i] = (float)rand() / (float)RAND_MAX;
  return t;
}

struct layer {
  TfLiteTensor tensors[5];
  TfLiteContext context;
  struct partition partition;
  struct plan plan;
  struct node node;
  int producer[5];
  bool is_output[5];
  double macs;
};

static bool make_layer(struct layer *l, struct shared *shared, int size, int channels, int kernel, TfLiteType type) {
  const int words = channels / 32;
  *l = (struct layer){.macs = (double)size * size * channels * channels * kernel * kernel};
  l->tensors[0] = tensor(kTfLiteInt32, 2, 4, (int[]){1, size, size, words});
  l->tensors[1] = tensor(kTfLiteInt32, kTfLiteMmapRo, 4, (int[]){channels, kernel, kernel, words});
  l->tensors[2] = tensor(kTfLiteFloat32, kTfLiteMmapRo, 1, &channels);
  l->tensors[3] = tensor(kTfLiteFloat32, kTfLiteMmapRo, 1, &channels);
  l->tensors[4] = tensor(type, 2, 4, (int[]){1, size, size, channels});
  l->tensors[4].params.scale = (float)channels / 64;
  l->context = (TfLiteContext){.tensors_size = 5,
                               .tensors = l->tensors,
                               .ResizeTensor = keep_shape,
                               .ReportError = report,
                               .recommended_num_threads = 1};
  TfLiteIntArray *inputs = array(5, (int[]){0, 1, 2, 3, -1}), *outputs = array(1, (int[]){4});
  l->node = (struct node){
      .kind = NODE_BCONV,
      .inputs = inputs,
      .outputs = outputs,
      .channels_in = channels,
      .window = {.height = kernel,
                 .width = kernel,
                 .stride_height = 1,
                 .stride_width = 1,
                 .dilation_height = 1,
                 .dilation_width = 1,
                 .same = true},
      .values = {{NULL, 0}, {l->tensors[1].data.data, 1}, {l->tensors[2].data.data, 1}, {l->tensors[3].data.data, 1}}};
  memcpy(l->producer, (int[]){-1, -1, -1, -1, 0}, sizeof l->producer);
  l->is_output[4] = true;
  l->plan = (struct plan){
      .tensor_count = 5, .node_count = 1, .nodes = &l->node, .producer = l->producer, .is_output = l->is_output};
  l->partition = (struct partition){.shared = shared, .options = &shared->options, .plan = &l->plan};
  const bool prepared = prepare_partition(&l->context, &l->partition) == kTfLiteOk;
  free(inputs);
  free(outputs);
  return prepared;
}

static void free_layer(struct layer *l) {
  free_steps(&l->plan);
  free(l->plan.shapes);
  free(l->partition.memory);
  free(l->partition.scratch);
  for (int i = 0; i < 5; i++) {
    free(l->tensors[i].dims);
    free(l->tensors[i].data.data);
  }
}

static void store_all(TfLiteTensor *t) {
  for (size_t i = 0; i < t->bytes / sizeof(float); i++) t->data.f[i] = 0.5f;
}

static void measure(const struct kernels *kernels) {
  static const int shapes[][4] = {
      {56, 64, 3, kTfLiteFloat32},  {28, 128, 3, kTfLiteFloat32}, {14, 256, 3, kTfLiteFloat32},
      {7, 512, 3, kTfLiteFloat32},  {112, 64, 1, kTfLiteFloat32}, {56, 128, 1, kTfLiteFloat32},
      {28, 128, 1, kTfLiteFloat32}, {14, 256, 1, kTfLiteFloat32}, {28, 128, 3, kTfLiteInt8},
      {28, 128, 1, kTfLiteInt8},
  };
  enum { LAYERS = sizeof shapes / sizeof *shapes };
  double (*peak)(void) = peak_of(kernels->name);
  struct shared shared = {.options = {.kernels = kernels, .fuse = true}};
  struct layer *layers = calloc(LAYERS, sizeof *layers);
  double best[LAYERS + 1] = {0}, stored[LAYERS] = {0};
  for (int i = 0; i < LAYERS; i++)
    if (!make_layer(&layers[i], &shared, shapes[i][0], shapes[i][1], shapes[i][2], (TfLiteType)shapes[i][3])) exit(1);
  const int rounds = peak ? ROUNDS : 3;
  for (int r = 0; r < rounds; r++) {
    for (int i = 0; i < LAYERS; i++) {
      double start = seconds();
      invoke_partition(&layers[i].context, &layers[i].partition);
      const double speed = layers[i].macs / (seconds() - start);
      if (speed > best[i]) best[i] = speed;
      start = seconds();
      store_all(&layers[i].tensors[4]);
      const double time = seconds() - start;
      if (r == 0 || time < stored[i]) stored[i] = time;
    }
    if (!peak) continue;
    const double start = seconds();
    const double macs = peak();
    const double speed = macs / (seconds() - start);
    if (speed > best[LAYERS]) best[LAYERS] = speed;
  }
  printf("%-10s peak %7.0f GMAC/s\n", kernels->name, best[LAYERS] / 1e9);
  for (int i = 0; i < LAYERS; i++) {
    char share[16] = "   -";
    if (peak) snprintf(share, sizeof share, "%3.0f %%", 100 * best[i] / best[LAYERS]);
    char shape[32];
    snprintf(shape, sizeof shape, "%dx%d %dx%dx%d", shapes[i][2], shapes[i][2], shapes[i][0], shapes[i][0],
             shapes[i][1]);
    printf("  %-15s %-7s %7.0f GMAC/s %s of the peak, %4.1f x memory\n", shape,
           shapes[i][3] == kTfLiteInt8 ? "to int8" : "", best[i] / 1e9, share, layers[i].macs / best[i] / stored[i]);
  }
  for (int i = 0; i < LAYERS; i++) free_layer(&layers[i]);
  free(layers);
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    const struct kernels *kernels = choose_kernels(argv[i]);
    if (!kernels) {
      fprintf(stderr, "no implementation '%s' on this processor\n", argv[i]);
      return 1;
    }
    measure(kernels);
  }
  for (const struct kernels *const *k = all_kernels; argc == 1 && *k; k++)
    if ((*k)->supported()) measure(*k);
  return 0;
}
