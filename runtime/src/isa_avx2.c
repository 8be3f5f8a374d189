/* AVX2: 32 output channels a vector, one word a cell. */
#if defined(__x86_64__)
#include <immintrin.h>

#define FLOATS 8
#define BLOCKS_AT_ONCE 2
#define VECTORS_AT_ONCE 1
typedef __m256 vfloat;
#define vload(p) _mm256_loadu_ps(p)
#define vstore(p, v) _mm256_storeu_ps(p, v)
#define vset1(x) _mm256_set1_ps(x)
#define vadd(a, b) _mm256_add_ps(a, b)
#define vsub(a, b) _mm256_sub_ps(a, b)
#define vmul(a, b) _mm256_mul_ps(a, b)
#define vmin(a, b) _mm256_min_ps(a, b)
#define vmax(a, b) _mm256_max_ps(a, b)
#define vfall(v, slope) vmax(vmul(v, slope), v)
#define vconvert(p) vadd(vload((const float *)(const void *)(p)), vset1(-0x1p23f))

static inline __m256 vprelu(__m256 v, __m256 slope) {
  return _mm256_blendv_ps(v, _mm256_mul_ps(v, slope), _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ));
}

typedef unsigned vword;
#define vbelow(word, i, v, threshold) \
  ((word) | (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(v, threshold, _CMP_LT_OQ)) << ((i) * 8))
#define vbits(word) (word)

static inline void vload_int8(__m256 *v, const char *p) {
  for (int i = 0; i < 4; i++)
    v[i] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(p + 8 * i))));
}

static inline void vstore_int8(char *p, const __m256 *v) {
  __m256i pairs[2];
  for (int i = 0; i < 2; i++)
    pairs[i] = _mm256_packs_epi32(_mm256_cvttps_epi32(v[2 * i]), _mm256_cvttps_epi32(v[2 * i + 1]));
  /* Packing leaves each four in the half where they were. */
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(pairs[0], pairs[1]), order);
  _mm256_storeu_si256((__m256i *)(void *)p, bytes);
}

#include "algorithms.inc.h"

/* Bits are looked up, not counted, which takes two operations for 32 channels and 4 bits: a byte holds 4 bits of a
 * channel's weights, and is the index into a table that 4 bits of the pixel select. */
enum { PIXELS = 6, LANES = 32, NIBBLES = 8, ROOM = 7 /* words whose sums fit in bytes */ };

/* How many of each 4 bits of a pixel differ from the index. */
#define COUNT(n) ((n) & 1) + ((n) >> 1 & 1) + ((n) >> 2 & 1) + ((n) >> 3)
#define TABLE(x)                                                                               \
  {                                                                                            \
      COUNT(x ^ 0),  COUNT(x ^ 1),  COUNT(x ^ 2),  COUNT(x ^ 3), COUNT(x ^ 4),  COUNT(x ^ 5),  \
      COUNT(x ^ 6),  COUNT(x ^ 7),  COUNT(x ^ 8),  COUNT(x ^ 9), COUNT(x ^ 10), COUNT(x ^ 11), \
      COUNT(x ^ 12), COUNT(x ^ 13), COUNT(x ^ 14), COUNT(x ^ 15)}
static const uint8_t tables[16][16] __attribute__((aligned(64))) = {
    TABLE(0), TABLE(1), TABLE(2),  TABLE(3),  TABLE(4),  TABLE(5),  TABLE(6),  TABLE(7),
    TABLE(8), TABLE(9), TABLE(10), TABLE(11), TABLE(12), TABLE(13), TABLE(14), TABLE(15)};

/* The places in the tables that each 4 bits of `count` words select. */
static inline void select_tables(uint8_t *offsets, const uint32_t *x, int count) {
  const __m128i high = _mm_set1_epi8((char)0xf0);
  for (; count >= 4; count -= 4, x += 4, offsets += 4 * NIBBLES) {
    const __m128i words = _mm_loadu_si128((const __m128i *)(const void *)x);
    const __m128i even = _mm_and_si128(_mm_slli_epi16(words, 4), high), odd = _mm_and_si128(words, high);
    _mm_storeu_si128((__m128i *)(void *)offsets, _mm_unpacklo_epi8(even, odd));
    _mm_storeu_si128((__m128i *)(void *)(offsets + 16), _mm_unpackhi_epi8(even, odd));
  }
  for (; count > 0; count--, x++, offsets += NIBBLES) {
    const __m128i word = _mm_cvtsi32_si128((int)*x);
    const __m128i even = _mm_and_si128(_mm_slli_epi16(word, 4), high), odd = _mm_and_si128(word, high);
    _mm_storel_epi64((__m128i *)(void *)offsets, _mm_unpacklo_epi8(even, odd));
  }
}

ALWAYS_INLINE void tile(const uint8_t *offsets, int words, const uint32_t *weights, size_t vector_words, bool first,
                        int32_t *acc, size_t acc_stride, const int O) {
  /* Sums of bytes 0, 2, 4 ... and of bytes 1, 3, 5 ..., which are channels 0 to 15 and 16 to 31. */
  __m256i pairs[PIXELS * 2][2];
  for (int i = 0; i < PIXELS * O; i++) pairs[i][0] = pairs[i][1] = _mm256_setzero_si256();
  for (int i = 0; i < words; i += ROOM) {
    __m256i sum[PIXELS * 2];
    UNROLL for (int j = 0; j < PIXELS * O; j++) sum[j] = _mm256_setzero_si256();
    const int end = (words - i < ROOM ? words : i + ROOM) * NIBBLES;
    for (int n = i * NIBBLES; n < end; n++) {
      __m256i w[2];
      UNROLL for (int o = 0; o < O; o++) w[o] =
          _mm256_load_si256((const __m256i *)(const void *)(weights + (size_t)o * vector_words) + n);
      UNROLL for (int p = 0; p < PIXELS; p++) {
        const uint8_t *table = &tables[0][0] + offsets[p * CHUNK * NIBBLES + n];
        const __m256i counts = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(const void *)table));
        UNROLL for (int o = 0; o < O; o++) sum[p * O + o] =
            _mm256_add_epi8(sum[p * O + o], _mm256_shuffle_epi8(counts, w[o]));
      }
      UNROLL for (int j = 0; j < PIXELS * O; j++) __asm__ volatile("" : "+x"(sum[j])); /* in registers */
    }
    UNROLL for (int j = 0; j < PIXELS * O; j++) {
      pairs[j][0] = _mm256_add_epi16(pairs[j][0], _mm256_and_si256(sum[j], _mm256_set1_epi16(255)));
      pairs[j][1] = _mm256_add_epi16(pairs[j][1], _mm256_srli_epi16(sum[j], 8));
    }
  }
  for (int p = 0; p < PIXELS; p++)
    for (int i = 0; i < O * 4; i++) {
      const __m256i half = pairs[p * O + i / 4][i / 2 % 2];
      __m256i *target = (__m256i *)(void *)(acc + (size_t)p * acc_stride + i * 8);
      const __m256i sums =
          _mm256_cvtepu16_epi32(i % 2 ? _mm256_extracti128_si256(half, 1) : _mm256_castsi256_si128(half));
      const __m256i before = first ? _mm256_set1_epi32(SUM_ZERO) : _mm256_loadu_si256(target);
      _mm256_storeu_si256(target, _mm256_add_epi32(before, sums));
    }
}

#define TILE(O)                                                                                                       \
  static void tile_6x##O(const uint8_t *offsets, int words, const uint32_t *weights, size_t vector_words, bool first, \
                         int32_t *acc, size_t acc_stride) {                                                           \
    tile(offsets, words, weights, vector_words, first, acc, acc_stride, O);                                           \
  }
TILE(2)
TILE(1)

static void accumulate(const struct gemm *gemm, int pixels, const uint32_t *const *x, int32_t *acc, size_t acc_stride) {
  (void)pixels;
  static const prepared_tile tiles[] = {NULL, NULL, tile_6x2, tile_6x1};
  accumulate_prepared(gemm, PIXELS, x, acc, acc_stride, LANES, NIBBLES, select_tables, tiles);
}

static bool supported(void) { return __builtin_cpu_supports("avx2"); }

const struct kernels kernels_avx2 = {
    .name = "avx2",
    .supported = supported,
    .lanes = LANES,
    .cell_words = 1,
    .tile = PIXELS,
    .nibbles = true,
    .accumulate = accumulate,
    .run = run,
    .straight = straight_programs,
};
#endif
