/* x86-64 with the popcnt instruction: 64 input channels a cell. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "scalar.inc.h"

#include "algorithms.inc.h"

enum { LANES = 4, PIXELS = 2 };

ALWAYS_INLINE uint64_t load64(const uint32_t *p) {
  uint64_t x;
  memcpy(&x, p, sizeof x);
  return x;
}

ALWAYS_INLINE void count_cell(uint64_t *sum, const uint64_t *x, const uint32_t *weights) {
  for (int lane = 0; lane < LANES; lane++) {
    const uint64_t w = load64(weights + 2 * lane);
    for (int p = 0; p < PIXELS; p++) sum[p * LANES + lane] += (uint64_t)_mm_popcnt_u64(w ^ x[p]);
  }
}

static void tile(const struct gemm *gemm, const uint32_t *const *x, int group_offset, const uint32_t *weights,
                 int32_t *acc, size_t acc_stride) {
  uint64_t sum[PIXELS * LANES] = {0};
  for (int t = 0; t < gemm->taps; t++) {
    const ptrdiff_t offset = gemm->tap_offsets[t] + group_offset;
    int i = 0;
    for (; i + 2 <= gemm->words; i += 2, weights += 2 * LANES)
      count_cell(sum, (const uint64_t[]){load64(x[0] + offset + i), load64(x[1] + offset + i)}, weights);
    if (i < gemm->words) {
      count_cell(sum, (const uint64_t[]){x[0][offset + i], x[1][offset + i]}, weights);
      weights += 2 * LANES;
    }
  }
  for (int p = 0; p < PIXELS; p++)
    for (int lane = 0; lane < LANES; lane++)
      acc[(size_t)p * acc_stride + (size_t)lane] = SUM_ZERO + (int32_t)sum[p * LANES + lane];
}

static void accumulate(const struct gemm *gemm, int pixels, const uint32_t *const *x, int32_t *acc, size_t acc_stride) {
  (void)pixels;
  static const tile_function tiles[] = {NULL, NULL, NULL, tile};
  accumulate_all(gemm, x, acc, acc_stride, LANES, tiles);
}

static bool supported(void) { return __builtin_cpu_supports("popcnt"); }

const struct kernels kernels_popcnt = {
    .name = "popcnt",
    .supported = supported,
    .lanes = LANES,
    .cell_words = 2,
    .tile = PIXELS,
    .accumulate = accumulate,
    .run = run,
    .straight = straight_programs,
};
#endif
