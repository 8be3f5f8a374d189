/* Plain C: the reference for the others. */
#include "scalar.inc.h"

#include "algorithms.inc.h"

static uint32_t count_bits(uint32_t x) {
  x -= (x >> 1) & 0x55555555u;
  x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
  return ((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24;
}

#ifndef PORTABLE_PIXELS /* the benchmark of memory traffic builds it with the tiles of NEON */
#define PORTABLE_PIXELS 2
#endif
enum { LANES = 4, PIXELS = PORTABLE_PIXELS };

static void tile(const struct gemm *gemm, const uint32_t *const *x, int group_offset, const uint32_t *weights,
                 int32_t *acc, size_t acc_stride) {
  for (int p = 0; p < PIXELS; p++) {
    const uint32_t *w = weights;
    uint32_t sum[LANES] = {0};
    for (int t = 0; t < gemm->taps; t++) {
      const uint32_t *words = x[p] + gemm->tap_offsets[t] + group_offset;
      for (int i = 0; i < gemm->words; i++, w += LANES)
        for (int lane = 0; lane < LANES; lane++) sum[lane] += count_bits(w[lane] ^ words[i]);
    }
    for (int lane = 0; lane < LANES; lane++) acc[(size_t)p * acc_stride + (size_t)lane] = SUM_ZERO + (int32_t)sum[lane];
  }
}

static void accumulate(const struct gemm *gemm, int pixels, const uint32_t *const *x, int32_t *acc, size_t acc_stride) {
  (void)pixels;
  static const tile_function tiles[] = {NULL, NULL, NULL, tile};
  accumulate_all(gemm, x, acc, acc_stride, LANES, tiles);
}

static bool supported(void) { return true; }

const struct kernels kernels_portable = {
    .name = "portable",
    .supported = supported,
    .lanes = LANES,
    .cell_words = 1,
    .tile = PIXELS,
    .accumulate = accumulate,
    .run = run,
    .straight = straight_programs,
};
