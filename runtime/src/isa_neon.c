/* AArch64 NEON: 4 output channels a vector, one word a step; bits are counted and summed in bytes. */
#if defined(__aarch64__)
#include <arm_neon.h>

#define FLOATS 4
#define BLOCKS_AT_ONCE 2
typedef float32x4_t vfloat;
#define vload(p) vld1q_f32(p)
#define vstore(p, v) vst1q_f32(p, v)
#define vset1(x) vdupq_n_f32(x)
#define vadd(a, b) vaddq_f32(a, b)
#define vsub(a, b) vsubq_f32(a, b)
#define vmul(a, b) vmulq_f32(a, b)
/* As on x86: the second operand where the comparison fails. */
#define vmin(a, b) vbslq_f32(vcltq_f32(a, b), a, b)
#define vmax(a, b) vbslq_f32(vcgtq_f32(a, b), a, b)
#define vprelu(v, slope) vbslq_f32(vcltzq_f32(v), vmulq_f32(v, slope), v)
#define vconvert(p) vcvtq_f32_s32(vld1q_s32(p))

static inline uint32_t vsigns(const float32x4_t *v) {
  const uint8x16_t weight = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  uint8x16_t bytes[2];
  for (int i = 0; i < 2; i++) {
    const uint16x8_t a = vcombine_u16(vmovn_u32(vcltzq_f32(v[4 * i])), vmovn_u32(vcltzq_f32(v[4 * i + 1])));
    const uint16x8_t b = vcombine_u16(vmovn_u32(vcltzq_f32(v[4 * i + 2])), vmovn_u32(vcltzq_f32(v[4 * i + 3])));
    bytes[i] = vandq_u8(vcombine_u8(vmovn_u16(a), vmovn_u16(b)), weight);
  }
  uint8x16_t sums = vpaddq_u8(bytes[0], bytes[1]);
  sums = vpaddq_u8(sums, sums);
  sums = vpaddq_u8(sums, sums);
  return vgetq_lane_u32(vreinterpretq_u32_u8(sums), 0);
}

#include "algorithms.inc.h"

ALWAYS_INLINE void tile(const struct gemm *gemm, const uint32_t *const *x, int group_offset, const uint32_t *weights,
                        int32_t *acc, size_t acc_stride, const int P, const int O) {
  uint8x16_t sum[16];
  UNROLL for (int i = 0; i < P * O; i++) sum[i] = vdupq_n_u8(0);
  UNROLL for (int p = 0; p < P; p++) memset(acc + (size_t)p * acc_stride, 0, (size_t)O * 4 * sizeof(int32_t));
  const size_t vector_words = gemm->vector_words;
  const int words = gemm->words;
  int room = 31; /* a byte holds 255, and a step adds 8 at most */
  for (int t = 0; t < gemm->taps; t++) {
    const ptrdiff_t offset = gemm->tap_offsets[t] + group_offset;
    for (int i = 0; i < words;) {
      const int end = words - i <= room ? words : i + room;
      room -= end - i;
      for (; i < end; i++) {
        uint32x4_t w[8];
        UNROLL for (int o = 0; o < O; o++) w[o] = vld1q_u32(weights + (size_t)o * vector_words);
        UNROLL for (int p = 0; p < P; p++) {
          const uint32x4_t word = vld1q_dup_u32(x[p] + offset + i);
          UNROLL for (int o = 0; o < O; o++)
            sum[p * O + o] =
                vaddq_u8(sum[p * O + o], vcntq_u8(vreinterpretq_u8_u32(veorq_u32(w[o], word))));
        }
        weights += 4;
      }
      if (room == 0 || (t == gemm->taps - 1 && i == words)) {
        UNROLL for (int p = 0; p < P; p++)
          UNROLL for (int o = 0; o < O; o++) {
            uint32_t *target = (uint32_t *)(void *)(acc + (size_t)p * acc_stride) + o * 4;
            vst1q_u32(target, vpadalq_u16(vld1q_u32(target), vpaddlq_u8(sum[p * O + o])));
            sum[p * O + o] = vdupq_n_u8(0);
          }
        room = 31;
      }
    }
  }
}

#define TILE(P, O)                                                                                             \
  static void tile_##P##x##O(const struct gemm *gemm, const uint32_t *const *x, int group_offset,             \
                             const uint32_t *weights, int32_t *acc, size_t acc_stride) {                      \
    tile(gemm, x, group_offset, weights, acc, acc_stride, P, O);                                              \
  }
TILE(2, 8)
TILE(2, 4)
TILE(2, 2)
TILE(2, 1)
TILE(4, 4)
TILE(4, 2)
TILE(4, 1)

static void accumulate(const struct gemm *gemm, int pixels, const uint32_t *const *x, int32_t *acc,
                       size_t acc_stride) {
  static const tile_function few[] = {NULL, tile_4x4, tile_4x2, tile_4x1};
  static const tile_function many[] = {tile_2x8, tile_2x4, tile_2x2, tile_2x1};
  accumulate_all(gemm, x, acc, acc_stride, 4, pixels == 4 ? few : many);
}

static bool supported(void) { return true; }

const struct kernels kernels_neon = {"neon", supported, 4, 1, 4, 7, 2, false, accumulate, run};
#endif
