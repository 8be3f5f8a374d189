/* Binary convolutions: weights packed once, and the addends of zero padding at the border.
 *
 * With acc the bits in which the window and the weights differ, K the weights of an output and y = K - 2 acc the
 * convolution of +1 and -1, LCE defines
 *   float32: out = 2 acc * f32(-multiplier) + f32(bias + K multiplier), product and sum rounded one by one
 *   int8:    the same over the scale, plus the zero point, rounded half away from zero
 *   signs:   acc > threshold, here threshold - acc < 0, which floats represent exactly below 2^24.
 * Taps outside the image read +1; zero padding subtracts their weights again, once for each kind of border.
 */
#include "convolution.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "borders.h"
#include "memory.h"
#include "weights.h"

enum { SUM_BYTES = 12 << 10 };

static float float_at(const struct values *values, size_t i) {
  float value;
  memcpy(&value, &values->data[values->stride * i], sizeof value);
  return value;
}

/* acc * (2 scale) rounds as (2 acc) * scale does, unless twice the scale is too large; a denormal one counts as 0. */
static void double_scale(struct convolution *conv) {
  for (int o = 0; o < conv->channels_out; o++)
    if (isfinite(conv->scale[o]) && fabsf(conv->scale[o]) > FLT_MAX / 2) {
      if (!conv->clamped) conv->clamp_high = INFINITY;
      if (!conv->clamped) conv->clamp_low = -INFINITY;
      conv->clamped = true;
    }
  for (int o = 0; o < conv->channels_out && !conv->clamped; o++)
    conv->scale[o] = fabsf(conv->scale[o]) < FLT_MIN ? copysignf(0, conv->scale[o]) : 2 * conv->scale[o];
}

struct convolution *make_convolution(TfLiteContext *context, const struct node *node, const struct kernels *kernels) {
  const TfLiteTensor *filter = &context->tensors[node->inputs->data[1]], *y = &context->tensors[node->outputs->data[0]];
  struct convolution *conv = calloc(1, sizeof *conv);
  if (!conv) return NULL;
  conv->window = node->window;
  conv->filter = node->values[1];
  conv->channels_in = node->channels_in;
  conv->channels_out = filter->dims->data[0];
  conv->pad_zero = node->window.same && node->pad_values == 0 && (node->window.height > 1 || node->window.width > 1);
  struct gemm *gemm = &conv->gemm;
  gemm->words = filter->dims->data[3];
  gemm->groups = round_up(node->channels_in, 32) / 32 / gemm->words;
  const int per_group = conv->channels_out / gemm->groups;
  conv->kernels = kernels_of_groups(kernels, per_group, gemm->words, (int64_t)node->window.height * node->window.width);
  gemm->vectors = vectors_of(conv->kernels, per_group);
  conv->acc_stride = (size_t)round_up(gemm->groups * gemm->vectors * conv->kernels->lanes, UNIT);
  conv->tile_pixels = conv->kernels->tile;
  conv->period = conv->channels_out;

  const size_t channels = (size_t)round_up(conv->channels_out, UNIT);
  conv->scale = allocate(channels, sizeof(float));
  conv->shift = allocate(channels, sizeof(float));
  conv->multiplier = allocate(channels, sizeof(float));
  if (!conv->scale || !conv->shift || !conv->multiplier) {
    free_convolution(conv);
    return NULL;
  }
  const double K = (double)node->window.height * node->window.width * conv->channels_in / gemm->groups;
  const double scale = y->type == kTfLiteInt8 ? (double)y->params.scale : 1;
  const double zero = y->type == kTfLiteInt8 ? y->params.zero_point : 0;
  for (int o = 0; o < conv->channels_out; o++) {
    if (y->type == kTfLiteInt32) {
      /* acc is in 0..K, so thresholds outside have the same effect as the nearest inside. */
      const int32_t threshold = (int32_t)node->values[4].data[node->values[4].stride * (size_t)o];
      conv->scale[o] = conv->multiplier[o] = -0.5f;
      conv->shift[o] = (float)(threshold < 0 ? -1 : threshold > K ? K : threshold);
    } else {
      const double multiplier = (double)float_at(&node->values[2], (size_t)o);
      const double bias = (double)float_at(&node->values[3], (size_t)o);
      conv->scale[o] = conv->multiplier[o] = (float)(-multiplier / scale);
      conv->shift[o] = (float)((bias + K * multiplier) / scale + zero);
    }
  }
  if (node->activation != kTfLiteActNone) {
    const double high = node->activation == kTfLiteActRelu6 ? 6 : node->activation == kTfLiteActReluN1To1 ? 1 : K;
    const double low = node->activation == kTfLiteActReluN1To1 ? -1 : 0;
    conv->clamped = true;
    conv->clamp_low = (float)(K - (high < K ? high : K));
    conv->clamp_high = (float)(K - (low > -K ? low : -K));
  }
  double_scale(conv);
  return conv;
}

bool repeat_results(struct convolution *conv, int channels) {
  while (conv->period % UNIT && conv->period < channels) conv->period += conv->channels_out;
  const size_t width = (size_t)round_up(conv->period, UNIT);
  if (width > conv->acc_stride) conv->acc_stride = width;
  float **const constants[] = {&conv->scale, &conv->shift, &conv->multiplier};
  for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
    float *repeated = allocate(width, sizeof *repeated);
    if (!repeated) return false;
    for (int c = 0; c < conv->period; c++) repeated[c] = (*constants[i])[c % conv->channels_out];
    free(*constants[i]);
    *constants[i] = repeated;
  }
  return true;
}

void free_convolution(struct convolution *conv) {
  if (!conv) return;
  free_convolution(conv->next);
  free_taps(conv);
  free(conv->scale);
  free(conv->shift);
  free(conv->multiplier);
  free(conv->borders);
  free(conv->row_class);
  free(conv->column_class);
  free(conv->padded);
  free(conv);
}

size_t packed_bytes(const struct convolution *conv) {
  return (size_t)conv->gemm.groups * (size_t)conv->gemm.vectors * conv->gemm.vector_words * sizeof(uint32_t);
}

size_t constant_bytes(const struct convolution *conv) {
  const size_t channels = (size_t)conv->channels_out, taps = (size_t)conv->gemm.taps;
  const size_t sums = (size_t)(length(conv->rows.taps) + 1) * (size_t)(length(conv->columns.taps) + 1) + 1;
  return 4 * (3 * (size_t)round_up(conv->period, UNIT) + taps + (conv->sums ? sums * channels : 0) +
              (conv->missed ? channels : 0)) +
         conv->border_bytes + conv->padded_bytes;
}

void place_windows(struct convolution *conv, const struct buffer *input) {
  const struct window *w = &conv->window;
  conv->rows = place_axis(input->h, w->height, w->stride_height, w->dilation_height, w->same);
  conv->columns = place_axis(input->w, w->width, w->stride_width, w->dilation_width, w->same);
  /* The program runs for several tiles, if their sums stay in the first-level cache. */
  const int64_t fit = SUM_BYTES / (int64_t)((size_t)conv->tile_pixels * conv->acc_stride * sizeof(int32_t));
  const int most = MAX_TILE / conv->tile_pixels;
  conv->grain = conv->tile_pixels * (fit < 1 ? 1 : fit < most ? (int)fit : most);
}

bool prepare_convolution(struct convolution *conv, const struct buffer *input, struct threads *threads,
                         int num_threads) {
  const struct window *w = &conv->window;
  if (!lay_out_taps(conv, threads, num_threads)) return false;
  const int left = input->external ? conv->columns.before : input->left;
  const int right = input->external ? conv->columns.behind : input->right;
  const int64_t row = ((int64_t)left + input->w + right) * input->pixel_words;
  for (int t = 0; t < conv->gemm.taps; t++) {
    const int columns = length(conv->columns.taps);
    const int64_t offset = (int64_t)(t / columns) * w->dilation_height * row +
                           (int64_t)(t % columns) * w->dilation_width * input->pixel_words;
    if (offset > INT32_MAX) return false;
    conv->tap_offsets[t] = (int32_t)offset;
  }
  free(conv->padded);
  conv->padded = NULL;
  conv->padded_bytes = 0;
  if (input->external && (conv->rows.before || conv->rows.behind || conv->columns.before || conv->columns.behind)) {
    const uint64_t rows = (uint64_t)input->n * (uint64_t)(conv->rows.before + input->h + conv->rows.behind);
    conv->padded = allocate(rows, (uint64_t)row * sizeof(uint32_t));
    if (!conv->padded) return false;
    conv->padded_bytes = (size_t)(rows * (uint64_t)row * sizeof(uint32_t));
  }
  return !conv->pad_zero || prepare_borders(conv, input);
}
