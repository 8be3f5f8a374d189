#include "weights.h"

#include <stdlib.h>

#include "borders.h"
#include "memory.h"
#include "threads.h"

/* The words of a tap lie a stride apart. */
static const uint32_t *filter_tap(const struct convolution *conv, int output, int row, int column) {
  const uint64_t tap = (uint64_t)output * (uint64_t)conv->window.height * (uint64_t)conv->window.width +
                       (uint64_t)row * (uint64_t)conv->window.width + (uint64_t)column;
  return conv->filter.data + conv->filter.stride * (size_t)(tap * (uint64_t)conv->gemm.words);
}

int tap_sum(const struct convolution *conv, int output, int row, int column) {
  const uint32_t *from = filter_tap(conv, output, row, column);
  int negative = 0;
  for (int i = 0; i < conv->gemm.words; i++) negative += __builtin_popcount(from[conv->filter.stride * (size_t)i]);
  return conv->channels_in / conv->gemm.groups - 2 * negative;
}

int vectors_of(const struct kernels *kernels, int outputs) { return (outputs + kernels->lanes - 1) / kernels->lanes; }

/* Words of a tap's laid-out weights for the outputs of a group. */
static int64_t tap_words(const struct kernels *kernels, int outputs, int words) {
  return (int64_t)vectors_of(kernels, outputs) * kernels->lanes * round_up(words, kernels->cell_words) *
         (kernels->nibbles ? 2 : 1);
}

/* Outputs of a group, and words of all their weights, that are worth preparing bytes for tiles. The tests' builds use
 * small ones. */
#ifndef LEAST_OUTPUTS
#define LEAST_OUTPUTS 32
#define LEAST_WORDS 2048
#endif

const struct kernels *kernels_of_groups(const struct kernels *kernels, int outputs, int words, int64_t taps) {
  enum { MOST_PADDING = 8 };
  if (kernels->small && (outputs < LEAST_OUTPUTS || taps * words * outputs < LEAST_WORDS)) kernels = kernels->small;
  if (tap_words(kernels, outputs, words) <= (int64_t)MOST_PADDING * outputs * words) return kernels;
  const struct kernels *best = kernels;
  for (const struct kernels *const *k = all_kernels; *k; k++)
    if ((*k)->supported() && tap_words(*k, outputs, words) < tap_words(best, outputs, words)) best = *k;
  return best;
}

/* Lays out the weights of one output. */
static void pack_output(const struct convolution *conv, int o) {
  const struct gemm *gemm = &conv->gemm;
  const struct kernels *kernels = conv->kernels;
  const int per_group = conv->channels_out / gemm->groups, lanes = kernels->lanes, columns = length(conv->columns.taps);
  const int group = o / per_group, vector = o % per_group / lanes, lane = o % per_group % lanes;
  uint32_t *to = conv->weights + ((size_t)group * (size_t)gemm->vectors + (size_t)vector) * gemm->vector_words;
  const int words = gemm->words, cell = kernels->cell_words;
  const size_t stride = conv->filter.stride;
  uint32_t *ones = to + gemm->vector_words - (size_t)(lanes - lane);
  if (kernels->ones) *ones = SUM_ZERO;
  for (int t = 0; t < gemm->taps; t++) {
    const uint32_t *from =
        filter_tap(conv, o, conv->rows.taps.first + t / columns, conv->columns.taps.first + t % columns);
    for (int i = 0; i < words; from += stride, i++) {
      if (kernels->ones) *ones += (uint32_t)__builtin_popcount(*from);
      if (kernels->nibbles) {
        uint8_t *bytes = (uint8_t *)to + lane % 16 * 2 + lane / 16;
        for (int n = 0; n < 8; n++) bytes[n * lanes] = *from >> (4 * n) & 15;
        to += 2 * lanes;
      } else {
        to[lane * cell + i % cell] = *from;
        if (i % cell == cell - 1 || i == words - 1) to += lanes * cell;
      }
    }
  }
}

enum { PARTS = 64, LARGE = 1 << 15 /* words that are worth waking other threads */ };

static void pack_part(void *argument, int thread, int part) {
  (void)thread;
  const struct convolution *conv = argument;
  const int64_t outputs = conv->channels_out;
  for (int o = (int)(outputs * part / PARTS); o < outputs * (part + 1) / PARTS; o++) pack_output(conv, o);
}

/* Bits that differ in the taps that never meet the image, where all signs are +1. */
static bool count_missed(struct convolution *conv) {
  const struct range rows = conv->rows.taps, columns = conv->columns.taps;
  if (length(rows) == conv->window.height && length(columns) == conv->window.width) return true;
  conv->missed = allocate((uint64_t)conv->channels_out, sizeof *conv->missed);
  if (!conv->missed) return false;
  for (int o = 0; o < conv->channels_out; o++)
    for (int y = 0; y < conv->window.height; y++)
      for (int x = 0; x < conv->window.width; x++)
        if (y < rows.first || y >= rows.end || x < columns.first || x >= columns.end)
          conv->missed[o] += (conv->channels_in / conv->gemm.groups - tap_sum(conv, o, y, x)) / 2;
  return true;
}

void free_taps(struct convolution *conv) {
  free(conv->weights);
  free(conv->tap_offsets);
  free(conv->missed);
  free(conv->all_sums);
  free(conv->sums);
  conv->weights = NULL;
  conv->tap_offsets = conv->missed = conv->all_sums = conv->sums = NULL;
}

bool lay_out_taps(struct convolution *conv, struct threads *threads, int num_threads) {
  struct gemm *gemm = &conv->gemm;
  if (conv->weights && same_range(conv->packed_rows, conv->rows.taps) &&
      same_range(conv->packed_columns, conv->columns.taps))
    return true;
  free_taps(conv);
  gemm->taps = length(conv->rows.taps) * length(conv->columns.taps);
  const int outputs = conv->channels_out / gemm->groups;
  const uint64_t words = (uint64_t)tap_words(conv->kernels, outputs, gemm->words) * (uint64_t)gemm->taps +
                         (conv->kernels->ones ? (uint64_t)gemm->vectors * (uint64_t)conv->kernels->lanes : 0);
  conv->tap_offsets = allocate((uint64_t)gemm->taps, sizeof(int32_t));
  if (!conv->tap_offsets || !count_missed(conv) || (conv->pad_zero && !sum_weights(conv))) return false;
  conv->weights = allocate((uint64_t)gemm->groups * words, sizeof(uint32_t));
  if (!conv->weights) return false;
  gemm->vector_words = (size_t)(words / (uint64_t)gemm->vectors);
  gemm->weights = conv->weights;
  gemm->tap_offsets = conv->tap_offsets;
  conv->packed_rows = conv->rows.taps;
  conv->packed_columns = conv->columns.taps;
  run_parallel(threads, words < LARGE ? 1 : num_threads, pack_part, conv, PARTS);
  return true;
}
