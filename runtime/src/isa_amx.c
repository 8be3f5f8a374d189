/* AMX int8: tiles of 16 pixels, 16 output channels and 64 input channels; programs are AVX-512's.
 *
 * With x and w the bits of input and weights, those that differ are sum(w) + sum(x (1 - 2w)). A tile of A holds x as
 * bytes 0 and 1, one of B holds 1 - 2w as bytes 1 and -1, and C starts from SUM_ZERO + sum(w). Bits become bytes as
 * they are needed, the weights' anew for each tile of pixels: eight times as large, they would not stay in the caches.
 * Row r of a word in B has bit r of each of the word's bytes; A has the same order.
 */
#include "kernels.h"

#ifdef HAS_AMX
#include <cpuid.h>
#include <immintrin.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "memory.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,gfni,amx-tile,amx-int8")))
#define INLINE TARGET static inline __attribute__((always_inline))

enum {
  PIXELS = 32,
  LANES = 16,
  ROW = 64,        /* bytes of a tile's row */
  TILE = 16 * ROW, /* bytes of a tile */
  CHUNK = 16,      /* tiles of A in a row that are prepared at once: 32 kB for all pixels */
  AHEAD = 3, /* pairs of tiles of B that are prepared before they are used: a tile is loaded from the cache only */
  RING = AHEAD + 1,
};

/* A row of A for each pixel, of two words or, if not `whole`, of one. */
INLINE void prepare_inputs(uint8_t *a, const uint32_t *const *x, const int pixels, ptrdiff_t first, ptrdiff_t second,
                           bool whole) {
#define BYTES(bit) bit, bit + 8, bit + 16, bit + 24
#define WORD(bit)                                                                                             \
  BYTES(bit), BYTES(bit + 1), BYTES(bit + 2), BYTES(bit + 3), BYTES(bit + 4), BYTES(bit + 5), BYTES(bit + 6), \
      BYTES(bit + 7)
  static const uint8_t order[ROW] = {WORD(0), WORD(32)};
#undef BYTES
#undef WORD
  const __m512i bits = _mm512_loadu_si512(order), one = _mm512_set1_epi8(1);
  const __mmask16 low = 0x5555, high = whole ? 0xaaaa : 0;
  for (int p = 0; p < pixels; p++) {
    __m512i words = _mm512_maskz_set1_epi32(low, (int)x[p][first]);
    words = _mm512_mask_set1_epi32(words, high, (int)x[p][second]);
    _mm512_store_si512(a + p * ROW, _mm512_and_si512(_mm512_multishift_epi64_epi8(bits, words), one));
  }
}

/* A tile of B, of two words or of one twice. */
INLINE void prepare_weights(uint8_t *b, const uint32_t *weights, bool whole) {
  for (int word = 0; word < 2; word++) {
    const __m512i words = _mm512_loadu_si512(weights + (whole ? word * LANES : 0));
#pragma GCC unroll 8
    for (int row = 0; row < 8; row++) {
      /* The lowest bit of the result is 1, the others are bit `row`. */
      const __m512i matrix = _mm512_set1_epi64(0x0001010101010101ll << row);
      _mm512_store_si512(b + (8 * word + row) * ROW, _mm512_gf2p8affine_epi64_epi8(words, matrix, 1));
    }
  }
}

/* The tiles of B of a chunk, in the order in which they are multiplied: pairs of vectors, and their cells. */
struct weights {
  const uint32_t *words; /* of the pair's first cell */
  size_t vector_words;
  int vectors, cells; /* that are left, and of the chunk */
  bool whole;         /* whether the chunk's last cell has two words */
  int cell, slot;     /* that come next */
};

INLINE void prepare_next(struct weights *next, uint8_t *ring) {
  if (next->vectors <= 0) return;
  uint8_t *b = ring + next->slot * 2 * TILE;
  const uint32_t *words = next->words + next->cell * 2 * LANES;
  const bool whole = next->whole || next->cell < next->cells - 1;
  prepare_weights(b, words, whole);
  if (next->vectors > 1) prepare_weights(b + TILE, words + next->vector_words, whole);
  next->slot = (next->slot + 1) % RING;
  if (++next->cell < next->cells) return;
  next->cell = 0;
  next->words += 2 * next->vector_words;
  next->vectors -= 2;
}

/* GCC's intrinsic does not say that it reads memory. */
#define LOAD(tile, from, stride)       \
  do {                                 \
    __asm__ volatile("" ::: "memory"); \
    _tile_loadd(tile, from, stride);   \
  } while (0)

/* Adds a chunk's products to the sums of all vectors: to those in acc, or for the first chunk to the ones of the
 * weights. C is in tiles 0 to 3, [half of the pixels][vector of a pair], A in 4 and 5, B in 6 and 7. */
INLINE void multiply(const uint8_t *a, struct weights next, uint8_t *ring, const int32_t *ones, int32_t *acc,
                     size_t acc_stride, const int pixels) {
  const bool halves = pixels == PIXELS;
  const size_t step = next.vector_words, to_half = LANES * acc_stride;
  const size_t stride = acc_stride * sizeof *acc, from_stride = ones ? 0 : stride;
  const int vectors = next.vectors;
  int slot = 0;
  for (int i = 0; i < AHEAD; i++) prepare_next(&next, ring);
  for (int v = 0; v < vectors; v += 2, acc += 2 * LANES) {
    const bool pair = v + 1 < vectors;
    const int32_t *c = ones ? ones + (size_t)v * step : acc;
    const size_t to_vector = ones ? step : LANES, half = ones ? 0 : to_half;
    LOAD(0, c, from_stride);
    if (pair) LOAD(1, c + to_vector, from_stride);
    if (halves) LOAD(2, c + half, from_stride);
    if (halves && pair) LOAD(3, c + half + to_vector, from_stride);
    for (int cell = 0; cell < next.cells; cell++) {
      prepare_next(&next, ring);
      const uint8_t *from = a + cell * pixels * ROW, *b = ring + slot * 2 * TILE;
      slot = (slot + 1) % RING;
      LOAD(4, from, ROW);
      LOAD(6, b, ROW);
      _tile_dpbssd(0, 4, 6);
      if (pair) {
        LOAD(7, b + TILE, ROW);
        _tile_dpbssd(1, 4, 7);
      }
      if (halves) {
        LOAD(5, from + TILE, ROW);
        _tile_dpbssd(2, 5, 6);
        if (pair) _tile_dpbssd(3, 5, 7);
      }
    }
    _tile_stored(0, acc, stride);
    if (pair) _tile_stored(1, acc + LANES, stride);
    if (halves) _tile_stored(2, acc + to_half, stride);
    if (halves && pair) _tile_stored(3, acc + to_half + LANES, stride);
  }
}

INLINE void accumulate_pixels(const struct gemm *gemm, const uint32_t *const *x, int32_t *acc, size_t acc_stride,
                              const int pixels) {
  _Alignas(64) uint8_t a[CHUNK * PIXELS * ROW], ring[RING * 2 * TILE];
  const int words = gemm->taps * gemm->words, cells = (words + 1) / 2;
  const int chunks = (cells + CHUNK - 1) / CHUNK, most = (cells + chunks - 1) / chunks;
  const uint32_t *weights = gemm->weights;
  for (int group = 0; group < gemm->groups; group++) {
    int tap = 0, word = 0;
    for (int done = 0; done < cells; done += most) {
      const int count = cells - done < most ? cells - done : most;
      const bool whole = 2 * (done + count) <= words;
      for (int cell = 0; cell < count; cell++) {
        ptrdiff_t offsets[2] = {0, 0};
        for (int i = 0; i < 2 && tap < gemm->taps; i++) {
          offsets[i] = gemm->tap_offsets[tap] + group * gemm->words + word;
          if (++word == gemm->words) {
            word = 0;
            tap++;
          }
        }
        prepare_inputs(a + cell * pixels * ROW, x, pixels, offsets[0], offsets[1], whole || cell < count - 1);
      }
      const struct weights next = {.words = weights + (size_t)done * 2 * LANES,
                                   .vector_words = gemm->vector_words,
                                   .vectors = gemm->vectors,
                                   .cells = count,
                                   .whole = whole};
      const int32_t *ones = (const int32_t *)(const void *)(weights + gemm->vector_words - LANES);
      multiply(a, next, ring, done ? NULL : ones, acc, acc_stride, pixels);
    }
    weights += (size_t)gemm->vectors * gemm->vector_words;
    acc += gemm->vectors * LANES;
  }
}

TARGET static void accumulate(const struct gemm *gemm, int pixels, const uint32_t *const *x, int32_t *acc,
                              size_t acc_stride) {
  static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } shapes = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
  /* Each time: others use tiles on this thread, too, and a thread's switch is cheaper without them. */
  _tile_loadconfig(&shapes);
  if (pixels == PIXELS)
    accumulate_pixels(gemm, x, acc, acc_stride, PIXELS);
  else
    accumulate_pixels(gemm, x, acc, acc_stride, PIXELS / 2);
  _tile_release();
}

long syscall(long number, ...); /* unistd.h hides it in strict C */

/* Linux gives a process the tiles on request. The tests' emulation has them always. */
static const char *lack_of_tiles(void) {
#ifndef EMULATED_TILES
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 };
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_TILE) || !(d & AMX_INT8))
    return "the processor, or the virtual machine, has no AMX int8";
  if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA))
    return "Linux refuses AMX (arch_prctl: it is older than 5.16, or a signal stack is too small)";
#endif
  return NULL;
}

static const char *lack(void) {
  if (!kernels_avx512.supported() || !__builtin_cpu_supports("avx512vbmi") || !__builtin_cpu_supports("gfni"))
    return "the processor has no AVX-512 with VPOPCNTDQ and VBMI, or no GFNI";
  return lack_of_tiles();
}

static bool supported(void) { return !lack(); }

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Whether the sums of a convolution of 256 to 128 channels equal AVX-512's and take at most 0.8 of its time. */
static bool measure(void) {
  enum { TAPS = 9, WORDS = 8, VECTORS = 8, CHANNELS = VECTORS * LANES, TURNS = 20 };
  enum { VECTOR_WORDS = (TAPS * WORDS + 1) * LANES };
  struct {
    uint32_t weights[VECTORS * VECTOR_WORDS], inputs[PIXELS + TAPS * WORDS];
    int32_t offsets[TAPS], sums[2][PIXELS * CHANNELS];
  } *data = allocate(1, sizeof *data);
  if (!data) return false;
  uint32_t state = 1;
  for (int i = 0; i < PIXELS + TAPS * WORDS; i++) data->inputs[i] = state = state * 1664525 + 1013904223;
  for (int i = 0; i < VECTORS * VECTOR_WORDS; i++) {
    const int row = i % VECTOR_WORDS / LANES;
    if (row == TAPS * WORDS) {
      data->weights[i] += SUM_ZERO;
      continue;
    }
    data->weights[i] = state = state * 1664525 + 1013904223;
    data->weights[i + (TAPS * WORDS - row) * LANES] += (uint32_t)__builtin_popcount(state);
  }
  for (int t = 0; t < TAPS; t++) data->offsets[t] = t * WORDS;
  const uint32_t *x[PIXELS];
  for (int p = 0; p < PIXELS; p++) x[p] = data->inputs + p;
  const struct gemm gemm = {1, TAPS, data->offsets, WORDS, VECTORS, VECTOR_WORDS, data->weights};
  const struct kernels *const both[] = {&kernels_amx, &kernels_avx512};
  double best[2] = {0, 0};
  int done = 0; /* pixels of both */
  for (int turn = 0; turn < TURNS; turn++)
    for (int i = 0; i < 2; i++) {
      const int tile = both[i]->tile;
      const double start = seconds();
      for (done = 0; done + tile <= PIXELS; done += tile)
        both[i]->accumulate(&gemm, tile, x + done, data->sums[i] + done * CHANNELS, CHANNELS);
      const double time = (seconds() - start) / done;
      if (!turn || time < best[i]) best[i] = time;
    }
  const bool same = memcmp(data->sums[0], data->sums[1], (size_t)done * CHANNELS * sizeof(int32_t)) == 0;
  free(data);
  return same && best[0] <= 0.8 * best[1];
}

/* Once in a process. */
static bool faster(void) {
  static atomic_int known;
  if (!atomic_load(&known)) atomic_store(&known, measure() ? 1 : -1);
  return atomic_load(&known) > 0;
}

const struct kernels kernels_amx = {
    .name = "amx",
    .supported = supported,
    .lack = lack,
    .preferred = faster,
    .lanes = LANES,
    .cell_words = 1,
    .tile = PIXELS,
    .tile_rest = PIXELS / 2,
    .ones = true,
    .small = &kernels_avx512,
    .accumulate = accumulate,
};
#endif
