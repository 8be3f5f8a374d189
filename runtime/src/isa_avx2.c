/* AVX2: 8 output channels a vector, one word a step; bits of nibbles are looked up and summed in bytes. */
#if defined(__x86_64__)
#include <immintrin.h>

#define FLOATS 8
#define BLOCKS_AT_ONCE 2
typedef __m256 vfloat;
#define vload(p) _mm256_loadu_ps(p)
#define vstore(p, v) _mm256_storeu_ps(p, v)
#define vset1(x) _mm256_set1_ps(x)
#define vadd(a, b) _mm256_add_ps(a, b)
#define vsub(a, b) _mm256_sub_ps(a, b)
#define vmul(a, b) _mm256_mul_ps(a, b)
#define vmin(a, b) _mm256_min_ps(a, b)
#define vmax(a, b) _mm256_max_ps(a, b)
#define vconvert(p) _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))

static inline __m256 vprelu(__m256 v, __m256 slope) {
  return _mm256_blendv_ps(v, _mm256_mul_ps(v, slope), _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ));
}

static inline unsigned vsigns(const __m256 *v) {
  unsigned word = 0;
  for (int i = 0; i < 4; i++)
    word |= (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(v[i], _mm256_setzero_ps(), _CMP_LT_OQ)) << (8 * i);
  return word;
}

#include "algorithms.inc.h"

/* Bits of each byte, times `weight`. */
ALWAYS_INLINE __m256i count_bytes(__m256i bits, const int weight) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(
      0, (char)weight, (char)weight, (char)(2 * weight), (char)weight, (char)(2 * weight), (char)(2 * weight),
      (char)(3 * weight), (char)weight, (char)(2 * weight), (char)(2 * weight), (char)(3 * weight), (char)(2 * weight),
      (char)(3 * weight), (char)(3 * weight), (char)(4 * weight)));
  const __m256i low = _mm256_set1_epi8(15);
  return _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(bits, low)),
                         _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bits, 4), low)));
}

/* Adds three bits in every place: *sum has their parity, *carry what is worth two. */
ALWAYS_INLINE void add_bits(__m256i *sum, __m256i *carry, __m256i b, __m256i c) {
  const __m256i parity = _mm256_xor_si256(*sum, b);
  *carry = _mm256_or_si256(_mm256_and_si256(*sum, b), _mm256_and_si256(parity, c));
  *sum = _mm256_xor_si256(parity, c);
}

/* Bits in which eight steps of weights and words differ: seven of them are added in binary before they are counted,
 * which takes fewer operations than counting each. The words come in pairs, from `at`. */
ALWAYS_INLINE __m256i count_eight(const uint32_t *weights, const uint32_t *x, const ptrdiff_t *at) {
#define DIFFERING(i)                                                                               \
  _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)(weights + (i) * 8)),         \
                   _mm256_set1_epi32((int)x[at[(i) / 2] + (i) % 2]))
  __m256i ones = DIFFERING(0), twos, twos2, twos3, fours;
  add_bits(&ones, &twos, DIFFERING(1), DIFFERING(2));
  add_bits(&ones, &twos2, DIFFERING(3), DIFFERING(4));
  add_bits(&ones, &twos3, DIFFERING(5), DIFFERING(6));
  add_bits(&twos, &fours, twos2, twos3);
  return _mm256_add_epi8(_mm256_add_epi8(count_bytes(DIFFERING(7), 1), count_bytes(ones, 1)),
                         _mm256_add_epi8(count_bytes(twos, 2), count_bytes(fours, 4)));
#undef DIFFERING
}

ALWAYS_INLINE void flush(__m256i *bytes, int32_t *acc, size_t acc_stride, const int P, const int O) {
  const __m256i ones8 = _mm256_set1_epi8(1), ones16 = _mm256_set1_epi16(1);
  UNROLL for (int p = 0; p < P; p++)
    UNROLL for (int o = 0; o < O; o++) {
      __m256i *target = (__m256i *)(void *)(acc + (size_t)p * acc_stride + o * 8);
      const __m256i sums = _mm256_madd_epi16(_mm256_maddubs_epi16(bytes[p * O + o], ones8), ones16);
      _mm256_storeu_si256(target, _mm256_add_epi32(_mm256_loadu_si256(target), sums));
      bytes[p * O + o] = _mm256_setzero_si256();
    }
}

ALWAYS_INLINE void tile(const struct gemm *gemm, const uint32_t *const *x, int group_offset, const uint32_t *weights,
                        int32_t *acc, size_t acc_stride, const int P, const int O) {
  __m256i sum[8];
  UNROLL for (int i = 0; i < P * O; i++) sum[i] = _mm256_setzero_si256();
  UNROLL for (int p = 0; p < P; p++) memset(acc + (size_t)p * acc_stride, 0, (size_t)O * 8 * sizeof(int32_t));
  const size_t vector_words = gemm->vector_words;
  const int words = gemm->words;
  int room = 31; /* a byte holds 255, and a step adds 8 at most */
  for (int t = 0; t < gemm->taps; t++) {
    const ptrdiff_t offset = gemm->tap_offsets[t] + group_offset;
    for (int i = 0; i < words;) {
      /* Eight words of one tap, or all those of two or four taps. */
      const int span = i == 0 && words == 2 ? 4 : i == 0 && words == 4 ? 2 : 1;
      const bool eight = span > 1 ? t + span <= gemm->taps : words - i >= 8;
      if (room == 0 || (room < 8 && eight)) {
        flush(sum, acc, acc_stride, P, O);
        room = 31;
      }
      if (eight) {
        ptrdiff_t at[4];
        UNROLL for (int k = 0; k < 4; k++)
          at[k] = gemm->tap_offsets[t + k * span / 4] + group_offset + i + (span == 1 ? 2 * k : span == 2 ? k % 2 * 2 : 0);
        UNROLL for (int p = 0; p < P; p++)
          UNROLL for (int o = 0; o < O; o++)
            sum[p * O + o] =
                _mm256_add_epi8(sum[p * O + o], count_eight(weights + (size_t)o * vector_words, x[p], at));
        room -= 8;
        weights += 8 * 8;
        i += 8;
        t += span - 1;
        continue; /* several taps are done, or the rest of this one follows */
      }
      __m256i w[2];
      UNROLL for (int o = 0; o < O; o++)
        w[o] = _mm256_loadu_si256((const __m256i *)(const void *)(weights + (size_t)o * vector_words));
      UNROLL for (int p = 0; p < P; p++) {
        const __m256i word = _mm256_set1_epi32((int)x[p][offset + i]);
        UNROLL for (int o = 0; o < O; o++)
          sum[p * O + o] = _mm256_add_epi8(sum[p * O + o], count_bytes(_mm256_xor_si256(w[o], word), 1));
      }
      i++;
      room--;
      weights += 8;
    }
  }
  flush(sum, acc, acc_stride, P, O);
}

#define TILE(P, O)                                                                                             \
  static void tile_##P##x##O(const struct gemm *gemm, const uint32_t *const *x, int group_offset,             \
                             const uint32_t *weights, int32_t *acc, size_t acc_stride) {                      \
    tile(gemm, x, group_offset, weights, acc, acc_stride, P, O);                                              \
  }
TILE(4, 2)
TILE(4, 1)

static void accumulate(const struct gemm *gemm, int pixels, const uint32_t *const *x, int32_t *acc,
                       size_t acc_stride) {
  (void)pixels;
  static const tile_function tiles[] = {NULL, NULL, tile_4x2, tile_4x1};
  accumulate_all(gemm, x, acc, acc_stride, 8, tiles);
}

static bool supported(void) { return __builtin_cpu_supports("avx2"); }

const struct kernels kernels_avx2 = {"avx2", supported, 8, 1, 4, 0, 4, accumulate, run};
#endif
