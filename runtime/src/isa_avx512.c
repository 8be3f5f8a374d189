/* AVX-512 with VPOPCNTDQ: 16 output channels a vector, one word of input channels a cell. */
#if defined(__x86_64__)
#include <immintrin.h>

#define FLOATS 16
#define BLOCKS_AT_ONCE 4
#define VECTORS_AT_ONCE 2
typedef __m512 vfloat;
#define vload(p) _mm512_loadu_ps(p)
#define vstore(p, v) _mm512_storeu_ps(p, v)
#define vset1(x) _mm512_set1_ps(x)
#define vadd(a, b) _mm512_add_ps(a, b)
#define vsub(a, b) _mm512_sub_ps(a, b)
#define vmul(a, b) _mm512_mul_ps(a, b)
#define vmin(a, b) _mm512_min_ps(a, b)
#define vmax(a, b) _mm512_max_ps(a, b)
#define vprelu(v, slope) _mm512_mask_mul_ps(v, _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ), v, slope)
#define vfall(v, slope) vmax(vmul(v, slope), v)
#define vconvert(p) vadd(vload((const float *)(const void *)(p)), vset1(-0x1p23f))

typedef unsigned vword;
#define vbelow(word, i, v, threshold) ((word) | (unsigned)_mm512_cmp_ps_mask(v, threshold, _CMP_LT_OQ) << ((i) * 16))
#define vbits(word) (word)

static inline void vload_int8(__m512 *v, const char *p) {
  for (int i = 0; i < 2; i++)
    v[i] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i))));
}

static inline void vstore_int8(char *p, const __m512 *v) {
  for (int i = 0; i < 2; i++)
    _mm_storeu_si128((__m128i *)(void *)(p + 16 * i), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v[i])));
}

#include "algorithms.inc.h"

enum { PIXELS = 12 };

ALWAYS_INLINE void words(const struct gemm *gemm, const uint32_t *const *x, int group_offset, const uint32_t *weights,
                         int32_t *acc, size_t acc_stride, const int P, const int O) {
  __m512i sum[2 * PIXELS];
  UNROLL for (int i = 0; i < P * O; i++) sum[i] = _mm512_set1_epi32(SUM_ZERO);
  const size_t vector_words = gemm->vector_words;
  const int count = gemm->words;
  for (int t = 0; t < gemm->taps; t++) {
    const ptrdiff_t offset = gemm->tap_offsets[t] + group_offset;
    for (int i = 0; i < count; i++) {
      __m512i w[4];
      UNROLL for (int o = 0; o < O; o++) w[o] = _mm512_loadu_si512(weights + (size_t)o * vector_words);
      UNROLL for (int p = 0; p < P; p++) {
        const __m512i word = _mm512_set1_epi32((int)x[p][offset + i]);
        UNROLL for (int o = 0; o < O; o++) sum[p * O + o] =
            _mm512_add_epi32(sum[p * O + o], _mm512_popcnt_epi32(_mm512_xor_si512(w[o], word)));
      }
      weights += 16;
    }
  }
  UNROLL for (int p = 0; p < P; p++) {
    UNROLL for (int o = 0; o < O; o++) _mm512_storeu_si512(acc + (size_t)p * acc_stride + o * 16, sum[p * O + o]);
  }
}

/* Counts two words at once. Where r are bits that are still to count, and y and z those in which the words differ from
 * their weights, the three have as many ones as r ^ y ^ z and, twice, the bits that most of them have. That makes five
 * operations for two words, where counting each takes six. */
ALWAYS_INLINE void count_pair(__m512i *pairs, __m512i *r, __m512i x0, __m512i w0, __m512i x1, __m512i w1) {
  enum { XOR = 0x96, OLD_OR_NOT_NEW = 0x3a /* of (u, new, old): u ? ~new : old */ };
  const __m512i u = _mm512_ternarylogic_epi32(*r, x0, w0, XOR), new = _mm512_ternarylogic_epi32(u, x1, w1, XOR);
  *pairs = _mm512_add_epi32(*pairs, _mm512_popcnt_epi32(_mm512_ternarylogic_epi32(u, new, *r, OLD_OR_NOT_NEW)));
  *r = new;
  __asm__("" : "+v"(*pairs), "+v"(*r)); /* or the compiler keeps copies of them, for which there are no registers */
}

/* Of an even number of words. */
ALWAYS_INLINE void pairs(const struct gemm *gemm, const uint32_t *const *x, int group_offset, const uint32_t *weights,
                         int32_t *acc, size_t acc_stride, const int P, const int O) {
  __m512i sums[PIXELS], rest[PIXELS];
  UNROLL for (int i = 0; i < P * O; i++) sums[i] = rest[i] = _mm512_setzero_si512();
  const size_t vector_words = gemm->vector_words;
  const int count = gemm->words;
  for (int t = 0; t < gemm->taps; t++) {
    const ptrdiff_t offset = gemm->tap_offsets[t] + group_offset;
    int i = 0;
    do {
      __m512i w[4];
      UNROLL for (int o = 0; o < 2 * O; o++) w[o] =
          _mm512_loadu_si512(weights + (size_t)(o / 2) * vector_words + o % 2 * 16);
      UNROLL for (int p = 0; p < P; p++) {
        const uint32_t *from = x[p] + offset + i;
        const __m512i x0 = _mm512_set1_epi32((int)from[0]), x1 = _mm512_set1_epi32((int)from[1]);
        UNROLL for (int o = 0; o < O; o++)
            count_pair(&sums[p * O + o], &rest[p * O + o], x0, w[2 * o], x1, w[2 * o + 1]);
        __asm__ volatile("" : : : "memory"); /* or the compiler loads all pixels' words first */
      }
      weights += 32;
      i += 2;
    } while (i < count);
  }
  UNROLL for (int i = 0; i < P * O; i++) {
    const __m512i twice = _mm512_add_epi32(sums[i], sums[i]), ones = _mm512_popcnt_epi32(rest[i]);
    _mm512_storeu_si512(acc + (size_t)(i / O) * acc_stride + i % O * 16,
                        _mm512_add_epi32(_mm512_add_epi32(twice, ones), _mm512_set1_epi32(SUM_ZERO)));
  }
}

#define TILE(NAME, P, O)                                                                            \
  static void NAME##_##P##x##O(const struct gemm *gemm, const uint32_t *const *x, int group_offset, \
                               const uint32_t *weights, int32_t *acc, size_t acc_stride) {          \
    NAME(gemm, x, group_offset, weights, acc, acc_stride, P, O);                                    \
  }
TILE(words, 12, 2)
TILE(words, 12, 1)
TILE(words, 6, 4)
TILE(words, 6, 2)
TILE(words, 6, 1)
TILE(pairs, 12, 1)
TILE(pairs, 6, 2)
TILE(pairs, 6, 1)

/* So many words are worth counting in pairs. */
enum { LEAST_PAIRED = 8 };

static void accumulate(const struct gemm *gemm, int pixels, const uint32_t *const *x, int32_t *acc, size_t acc_stride) {
  static const tile_function tiles[2][2][4] = {
      {{NULL, words_6x4, words_6x2, words_6x1}, {NULL, NULL, words_12x2, words_12x1}},
      {{NULL, NULL, pairs_6x2, pairs_6x1}, {NULL, NULL, NULL, pairs_12x1}}};
  const bool paired = gemm->words % 2 == 0 && gemm->taps * gemm->words >= LEAST_PAIRED;
  accumulate_all(gemm, x, acc, acc_stride, 16, tiles[paired][pixels == PIXELS]);
}

static bool supported(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vpopcntdq");
}

const struct kernels kernels_avx512 = {
    .name = "avx512",
    .supported = supported,
    .lanes = 16,
    .cell_words = 1,
    .tile = PIXELS,
    .tile_rest = PIXELS / 2,
    .accumulate = accumulate,
    .run = run,
    .straight = straight_programs,
};
#endif
