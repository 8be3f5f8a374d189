/* AVX-512 with VPOPCNTDQ: 16 output channels a vector, one word of input channels a cell. */
#if defined(__x86_64__)
#include <immintrin.h>

#define FLOATS 16
#define BLOCKS_AT_ONCE 8
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
#define vconvert(p) _mm512_cvtepi32_ps(_mm512_loadu_si512(p))

static inline unsigned vsigns(const __m512 *v) {
  const __m512 zero = _mm512_setzero_ps();
  return (unsigned)_mm512_cmp_ps_mask(v[0], zero, _CMP_LT_OQ) | (unsigned)_mm512_cmp_ps_mask(v[1], zero, _CMP_LT_OQ)
                                                                    << 16;
}

static inline void vload_int8(__m512 *v, const char *p) {
  for (int i = 0; i < 2; i++)
    v[i] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i))));
}

static inline void vstore_int8(char *p, const __m512 *v) {
  for (int i = 0; i < 2; i++)
    _mm_storeu_si128((__m128i *)(void *)(p + 16 * i), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v[i])));
}

#include "algorithms.inc.h"

ALWAYS_INLINE void tile(const struct gemm *gemm, const uint32_t *const *x, int group_offset, const uint32_t *weights,
                        int32_t *acc, size_t acc_stride, const int P, const int O) {
  __m512i sum[MAX_TILE * 2];
  UNROLL for (int i = 0; i < P * O; i++) sum[i] = _mm512_setzero_si512();
  const size_t vector_words = gemm->vector_words;
  const int words = gemm->words;
  for (int t = 0; t < gemm->taps; t++) {
    const ptrdiff_t offset = gemm->tap_offsets[t] + group_offset;
    for (int i = 0; i < words; i++) {
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

#define TILE(P, O)                                                                                \
  static void tile_##P##x##O(const struct gemm *gemm, const uint32_t *const *x, int group_offset, \
                             const uint32_t *weights, int32_t *acc, size_t acc_stride) {          \
    tile(gemm, x, group_offset, weights, acc, acc_stride, P, O);                                  \
  }
TILE(6, 4)
TILE(6, 2)
TILE(6, 1)
TILE(12, 2)
TILE(12, 1)

static void accumulate(const struct gemm *gemm, int pixels, const uint32_t *const *x, int32_t *acc, size_t acc_stride) {
  static const tile_function few[] = {NULL, NULL, tile_12x2, tile_12x1};
  static const tile_function many[] = {NULL, tile_6x4, tile_6x2, tile_6x1};
  accumulate_all(gemm, x, acc, acc_stride, 16, pixels == 12 ? few : many);
}

static bool supported(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vpopcntdq");
}

#ifdef HAS_AMX
void run_avx512(const struct instruction *program, int count, int channels, int pixels) {
  run(program, count, channels, pixels);
}
#endif

const struct kernels kernels_avx512 = {
    .name = "avx512",
    .supported = supported,
    .lanes = 16,
    .cell_words = 1,
    .few = 3,
    .tile_few = 12,
    .tile_many = 6,
    .accumulate = accumulate,
    .run = run,
};
#endif
