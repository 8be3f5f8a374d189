/* AArch64 NEON: 4 output channels a vector, one word a cell; bits are counted and summed in bytes. */
#if defined(__aarch64__)
#include <arm_neon.h>

#define FLOATS 4
#define BLOCKS_AT_ONCE 2
#define PIXELS_AT_ONCE 4
#define vhide(p) __asm__("" : "+r"(p)) /* so that vectors are at constant offsets from it */
typedef float32x4_t vfloat;
#define vload(p) vld1q_f32(p)
#define vstore(p, v) vst1q_f32(p, v)
#define vset1(x) vdupq_n_f32(x)
#define vadd(a, b) vaddq_f32(a, b)
#define vsub(a, b) vsubq_f32(a, b)
#define vmul(a, b) vmulq_f32(a, b)
/* As on x86: the second operand if the comparison fails. */
#define vmin(a, b) vbslq_f32(vcltq_f32(a, b), a, b)
#define vmax(a, b) vbslq_f32(vcgtq_f32(a, b), a, b)
#define vprelu(v, slope) vbslq_f32(vcltzq_f32(v), vmulq_f32(v, slope), v)
#define vfall(v, slope) vmaxq_f32(vmulq_f32(v, slope), v)
#define vconvert(p) vaddq_f32(vreinterpretq_f32_s32(vld1q_s32(p)), vdupq_n_f32(-0x1p23f))

/* Bit 4 i + k is in lane k. */
typedef uint32x4_t vword;
#define vbelow(word, i, v, threshold) \
  vbslq_u32((uint32x4_t){1u << 4 * (i), 2u << 4 * (i), 4u << 4 * (i), 8u << 4 * (i)}, vcltq_f32(v, threshold), word)
#define vbits(word) vaddvq_u32(word)

static inline void vload_int8(float32x4_t *v, const char *p) {
  for (int i = 0; i < 4; i++) {
    const int16x8_t x = vmovl_s8(vld1_s8((const int8_t *)p + 8 * i));
    v[2 * i] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(x)));
    v[2 * i + 1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(x)));
  }
}

static inline void vstore_int8(char *p, const float32x4_t *v) {
  for (int i = 0; i < 4; i++) {
    const int16x4_t low = vmovn_s32(vcvtq_s32_f32(v[2 * i])), high = vmovn_s32(vcvtq_s32_f32(v[2 * i + 1]));
    vst1_s8((int8_t *)p + 8 * i, vmovn_s16(vcombine_s16(low, high)));
  }
}

#include "algorithms.inc.h"

enum { PIXELS = 4, LANES = 4, WORD_BYTES = 16, ROOM = 31 /* words whose sums fit in bytes */ };

/* Each word four times, as a vector of weights meets it: once for all output channels. */
static inline void repeat_words(uint8_t *repeated, const uint32_t *x, int count) {
  int i = 0;
  for (; i + 4 <= count; i += 4) {
    const uint32x4_t words = vld1q_u32(x + i);
    uint8_t *to = repeated + i * WORD_BYTES;
    vst1q_u8(to, vreinterpretq_u8_u32(vdupq_laneq_u32(words, 0)));
    vst1q_u8(to + WORD_BYTES, vreinterpretq_u8_u32(vdupq_laneq_u32(words, 1)));
    vst1q_u8(to + 2 * WORD_BYTES, vreinterpretq_u8_u32(vdupq_laneq_u32(words, 2)));
    vst1q_u8(to + 3 * WORD_BYTES, vreinterpretq_u8_u32(vdupq_laneq_u32(words, 3)));
  }
  for (; i < count; i++) vst1q_u8(repeated + i * WORD_BYTES, vreinterpretq_u8_u32(vld1q_dup_u32(x + i)));
}

ALWAYS_INLINE void tile(const uint8_t *repeated, int words, const uint32_t *weights, size_t vector_words, bool first,
                        int32_t *acc, size_t acc_stride, const int O) {
  for (int i = 0; i < words; i += ROOM) {
    uint8x16_t sum[PIXELS * 4];
    UNROLL for (int j = 0; j < PIXELS * O; j++) sum[j] = vdupq_n_u8(0);
    const int end = words - i < ROOM ? words : i + ROOM;
    for (int n = i; n < end; n++) {
      uint8x16_t x[PIXELS];
      UNROLL for (int p = 0; p < PIXELS; p++) x[p] = vld1q_u8(repeated + (p * CHUNK + n) * WORD_BYTES);
      UNROLL for (int o = 0; o < O; o++) {
        const uint8x16_t w = vreinterpretq_u8_u32(vld1q_u32(weights + (size_t)o * vector_words + n * LANES));
        UNROLL for (int p = 0; p < PIXELS; p++) sum[p * O + o] = vaddq_u8(sum[p * O + o], vcntq_u8(veorq_u8(w, x[p])));
      }
    }
    UNROLL for (int p = 0; p < PIXELS; p++) {
      UNROLL for (int o = 0; o < O; o++) {
        uint32_t *target = (uint32_t *)(void *)(acc + (size_t)p * acc_stride) + o * LANES;
        const uint32x4_t before = first && i == 0 ? vdupq_n_u32(SUM_ZERO) : vld1q_u32(target);
        vst1q_u32(target, vpadalq_u16(before, vpaddlq_u8(sum[p * O + o])));
      }
    }
  }
}

#define TILE(O)                                                                                                        \
  static void tile_4x##O(const uint8_t *repeated, int words, const uint32_t *weights, size_t vector_words, bool first, \
                         int32_t *acc, size_t acc_stride) {                                                            \
    tile(repeated, words, weights, vector_words, first, acc, acc_stride, O);                                           \
  }
TILE(4)
TILE(2)
TILE(1)

static void accumulate(const struct gemm *gemm, int pixels, const uint32_t *const *x, int32_t *acc, size_t acc_stride) {
  (void)pixels;
  static const prepared_tile tiles[] = {NULL, tile_4x4, tile_4x2, tile_4x1};
  accumulate_prepared(gemm, PIXELS, x, acc, acc_stride, LANES, WORD_BYTES, repeat_words, tiles);
}

static bool supported(void) { return true; }

const struct kernels kernels_neon = {
    .name = "neon",
    .supported = supported,
    .lanes = LANES,
    .cell_words = 1,
    .tile = PIXELS,
    .accumulate = accumulate,
    .run = run,
    .straight = straight_programs,
};
#endif
