/* Binary convolutions: weights packed once, and what zero padding adds at the border.
 *
 * With acc the bits in which the window and the weights differ, K the weights of an output and y = K - 2 acc the
 * convolution of +1 and -1, LCE defines
 *   float32: out = 2 acc * f32(-multiplier) + f32(bias + K multiplier), product and sum rounded one by one
 *   int8:    the same over the scale, plus the zero point, rounded half away from zero
 *   signs:   acc > threshold, here threshold - acc < 0, which floats represent exactly below 2^24.
 * Taps outside the image read +1; zero padding takes their weights off again, once for each kind of border.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "delegate.h"

void *allocate(uint64_t count, uint64_t size) {
  void *memory = NULL;
  if (count > PTRDIFF_MAX / 2 / (size ? size : 1)) return NULL;
  const size_t bytes = (size_t)(count * size) + 64;
  if (posix_memalign(&memory, 64, bytes)) return NULL;
  memset(memory, 0, bytes);
  return memory;
}

bool output_size(int in, int kernel, int stride, int dilation, bool same, int *out, int *before) {
  const int64_t extent = (int64_t)(kernel - 1) * dilation + 1;
  if (in < 1) return false;
  *before = 0;
  if (!same) {
    if (extent > in) return false;
    *out = (int)((in - extent) / stride) + 1;
    return true;
  }
  *out = (in - 1) / stride + 1;
  const int64_t total = (int64_t)(*out - 1) * stride + extent - in;
  if (total > 0) *before = (int)(total / 2);
  return true;
}

static float float_at(const struct values *values, size_t i) {
  float value;
  memcpy(&value, &values->data[values->step * i], sizeof value);
  return value;
}

static uint32_t filter_word(const struct convolution *conv, int output, int row, int column, int i) {
  const uint64_t tap = (uint64_t)output * (uint64_t)conv->window.height * (uint64_t)conv->window.width +
                       (uint64_t)row * (uint64_t)conv->window.width + (uint64_t)column;
  return conv->filter.data[conv->filter.step * (size_t)(tap * (uint64_t)conv->gemm.words + (uint64_t)i)];
}

/* Of the +1 and -1 of a tap, without those that fill up its last word: they count as +1 on both sides. */
static int tap_sum(const struct convolution *conv, int output, int row, int column) {
  int negative = 0;
  for (int i = 0; i < conv->gemm.words; i++) negative += __builtin_popcount(filter_word(conv, output, row, column, i));
  return conv->channels_in / conv->gemm.groups - 2 * negative;
}

/* ---- Weights ---- */

static int length(struct range range) { return range.end - range.first; }

static int vectors_of(const struct kernels *kernels, int outputs) {
  return (outputs + kernels->lanes - 1) / kernels->lanes;
}

/* Words of the laid out weights of a tap, for the outputs of a group. */
static int64_t tap_words(const struct kernels *kernels, int outputs, int words) {
  return (int64_t)vectors_of(kernels, outputs) * kernels->lanes * round_up(words, kernels->step_words) *
         (kernels->nibbles ? 2 : 1);
}

/* Groups of few outputs leave most lanes of a wide vector empty: then an implementation of narrower ones is as fast,
 * and its weights take less memory. */
static const struct kernels *kernels_of_groups(const struct kernels *kernels, int outputs, int words) {
  enum { MOST_PADDING = 8 };
  if (tap_words(kernels, outputs, words) <= (int64_t)MOST_PADDING * outputs * words) return kernels;
  const struct kernels *best = kernels;
  for (const struct kernels *const *k = all_kernels; *k; k++)
    if ((*k)->supported() && tap_words(*k, outputs, words) < tap_words(best, outputs, words)) best = *k;
  return best;
}

static void pack(struct convolution *conv) {
  struct gemm *gemm = &conv->gemm;
  const struct kernels *kernels = conv->kernels;
  const int per_group = conv->channels_out / gemm->groups;
  const int steps_of_tap = (gemm->words + kernels->step_words - 1) / kernels->step_words;
  for (int o = 0; o < conv->channels_out; o++) {
    const int group = o / per_group, vector = o % per_group / kernels->lanes, lane = o % per_group % kernels->lanes;
    uint32_t *to = conv->weights + ((size_t)group * (size_t)gemm->vectors + (size_t)vector) * gemm->vector_words;
    for (int t = 0; t < gemm->taps; t++)
      for (int i = 0; i < gemm->words; i++) {
        const int step = t * steps_of_tap + i / kernels->step_words;
        const int columns = length(conv->columns.taps);
        const uint32_t word = filter_word(conv, o, conv->rows.taps.first + t / columns,
                                          conv->columns.taps.first + t % columns, i);
        if (kernels->nibbles) {
          uint8_t *bytes = (uint8_t *)to + (size_t)step * 8 * (size_t)kernels->lanes;
          for (int n = 0; n < 8; n++) bytes[n * kernels->lanes + lane % 16 * 2 + lane / 16] = word >> (4 * n) & 15;
        } else {
          to[((size_t)step * (size_t)kernels->lanes + (size_t)lane) * (size_t)kernels->step_words +
             (size_t)(i % kernels->step_words)] = word;
        }
      }
  }
}

/* Sums of all weights, and of those of all taps before each row and column: what any part of a window weighs is then
 * a matter of four of them. */
static bool sum_weights(struct convolution *conv) {
  const struct range rows = conv->rows.taps, columns = conv->columns.taps;
  const size_t channels = (size_t)conv->channels_out, across = (size_t)length(columns) + 1;
  conv->all_sums = allocate(channels, sizeof *conv->all_sums);
  conv->sums = allocate(((uint64_t)length(rows) + 1) * across, channels * sizeof *conv->sums);
  if (!conv->all_sums || !conv->sums) return false;
  for (int o = 0; o < conv->channels_out; o++)
    for (int y = 0; y < conv->window.height; y++)
      for (int x = 0; x < conv->window.width; x++) {
        const int sum = tap_sum(conv, o, y, x);
        conv->all_sums[o] += sum;
        if (y < rows.first || y >= rows.end || x < columns.first || x >= columns.end) continue;
        int32_t *to = conv->sums + ((size_t)(y - rows.first + 1) * across + (size_t)(x - columns.first + 1)) * channels +
                      (size_t)o;
        const int32_t *above = to - across * channels;
        *to = sum + *above + *(to - channels) - *(above - channels);
      }
  return true;
}

/* Sum of an output's weights in some rows and columns. */
static int sum_of(const struct convolution *conv, int output, struct range rows, struct range columns) {
  const size_t channels = (size_t)conv->channels_out, across = (size_t)length(conv->columns.taps) + 1;
  const struct range all_rows = conv->rows.taps, all_columns = conv->columns.taps;
  if (rows.first >= rows.end || columns.first >= columns.end) return 0;
  const int32_t *sums = conv->sums + output;
#define AT(y, x) sums[((size_t)(y - all_rows.first) * across + (size_t)(x - all_columns.first)) * channels]
  return AT(rows.end, columns.end) - AT(rows.first, columns.end) - AT(rows.end, columns.first) +
         AT(rows.first, columns.first);
#undef AT
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

static bool same_range(struct range a, struct range b) { return a.first == b.first && a.end == b.end; }

static void free_taps(struct convolution *conv) {
  free(conv->weights);
  free(conv->tap_offsets);
  free(conv->missed);
  free(conv->all_sums);
  free(conv->sums);
  conv->weights = NULL;
  conv->tap_offsets = conv->missed = conv->all_sums = conv->sums = NULL;
}

/* Everything that depends on which taps meet the image; nothing to do where these are the same as before. */
static bool lay_out_taps(struct convolution *conv) {
  struct gemm *gemm = &conv->gemm;
  if (conv->weights && same_range(conv->packed_rows, conv->rows.taps) &&
      same_range(conv->packed_columns, conv->columns.taps))
    return true;
  free_taps(conv);
  gemm->taps = length(conv->rows.taps) * length(conv->columns.taps);
  const int outputs = conv->channels_out / gemm->groups;
  const uint64_t words = (uint64_t)tap_words(conv->kernels, outputs, gemm->words) * (uint64_t)gemm->taps;
  conv->tap_offsets = allocate((uint64_t)gemm->taps, sizeof(int32_t));
  if (!conv->tap_offsets || !count_missed(conv) || (conv->pad_zero && !sum_weights(conv))) return false;
  conv->weights = allocate((uint64_t)gemm->groups * words, sizeof(uint32_t));
  if (!conv->weights) return false;
  gemm->vector_words = (size_t)(words / (uint64_t)gemm->vectors);
  gemm->weights = conv->weights;
  gemm->tap_offsets = conv->tap_offsets;
  conv->packed_rows = conv->rows.taps;
  conv->packed_columns = conv->columns.taps;
  pack(conv);
  return true;
}

struct convolution *make_convolution(TfLiteContext *context, const struct operator * op, const struct kernels *kernels) {
  const TfLiteTensor *filter = &context->tensors[op->inputs->data[1]], *y = &context->tensors[op->outputs->data[0]];
  struct convolution *conv = calloc(1, sizeof *conv);
  if (!conv) return NULL;
  conv->window = op->window;
  conv->filter = op->values[1];
  conv->channels_in = op->channels_in;
  conv->channels_out = filter->dims->data[0];
  conv->pad_zero = op->window.same && op->pad_values == 0 && (op->window.height > 1 || op->window.width > 1);
  struct gemm *gemm = &conv->gemm;
  gemm->words = filter->dims->data[3];
  gemm->groups = round_up(op->channels_in, 32) / 32 / gemm->words;
  const int per_group = conv->channels_out / gemm->groups;
  conv->kernels = kernels_of_groups(kernels, per_group, gemm->words);
  gemm->vectors = vectors_of(conv->kernels, per_group);
  conv->acc_stride = (size_t)round_up(gemm->groups * gemm->vectors * conv->kernels->lanes, UNIT);
  conv->tile_pixels = tile_of(conv->kernels, gemm->vectors);
  conv->period = conv->channels_out;

  const size_t channels = (size_t)round_up(conv->channels_out, UNIT);
  conv->scale = allocate(channels, sizeof(float));
  conv->shift = allocate(channels, sizeof(float));
  conv->multiplier = allocate(channels, sizeof(float));
  if (!conv->scale || !conv->shift || !conv->multiplier) {
    free_convolution(conv);
    return NULL;
  }
  const double K = (double)op->window.height * op->window.width * conv->channels_in / gemm->groups;
  const double scale = y->type == kTfLiteInt8 ? (double)y->params.scale : 1;
  const double zero = y->type == kTfLiteInt8 ? y->params.zero_point : 0;
  for (int o = 0; o < conv->channels_out; o++) {
    if (y->type == kTfLiteInt32) {
      /* acc lies in 0..K, so that thresholds outside say the same as the nearest inside. */
      const int32_t threshold = (int32_t)op->values[4].data[op->values[4].step * (size_t)o];
      conv->scale[o] = conv->multiplier[o] = -0.5f;
      conv->shift[o] = (float)(threshold < 0 ? -1 : threshold > K ? K : threshold);
    } else {
      const double multiplier = (double)float_at(&op->values[2], (size_t)o);
      const double bias = (double)float_at(&op->values[3], (size_t)o);
      conv->scale[o] = conv->multiplier[o] = (float)(-multiplier / scale);
      conv->shift[o] = (float)((bias + K * multiplier) / scale + zero);
    }
  }
  if (op->activation != kTfLiteActNone) {
    const double high = op->activation == kTfLiteActRelu6 ? 6 : op->activation == kTfLiteActReluN1To1 ? 1 : K;
    const double low = op->activation == kTfLiteActReluN1To1 ? -1 : 0;
    conv->clamped = true;
    conv->clamp_low = (float)(K - (high < K ? high : K));
    conv->clamp_high = (float)(K - (low > -K ? low : -K));
  }
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
              (conv->missed ? channels : 0)) + conv->border_bytes + conv->padded_bytes;
}

/* ---- Windows ---- */

static int64_t divide_up(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : 0; }

static int at_most(int64_t value, int most) { return value < most ? (int)value : most; }

static struct axis place(int in, int kernel, int stride, int dilation, bool same) {
  struct axis axis = {0};
  output_size(in, kernel, stride, dilation, same, &axis.out, &axis.padding);
  const int64_t last = (int64_t)(axis.out - 1) * stride; /* less than `in` */
  axis.taps.first = at_most(divide_up(axis.padding - last, dilation), kernel);
  axis.taps.end = at_most(divide_up((int64_t)in + axis.padding, dilation), kernel);
  if (axis.taps.first >= axis.taps.end) { /* two taps far apart, one on each side of a small image */
    axis.taps.end = axis.taps.first;
    return axis;
  }
  axis.start = axis.taps.first * dilation - axis.padding;
  const int64_t end = axis.start + last + (int64_t)(length(axis.taps) - 1) * dilation + 1;
  axis.before = axis.start < 0 ? -axis.start : 0;
  axis.behind = end > in ? (int)(end - in) : 0;
  return axis;
}

void place_windows(struct convolution *conv, const struct buffer *input) {
  const struct window *w = &conv->window;
  conv->rows = place(input->h, w->height, w->stride_height, w->dilation_height, w->same);
  conv->columns = place(input->w, w->width, w->stride_width, w->dilation_width, w->same);
}

/* ---- Zero padding ---- */

/* Gives each output row (or column) the class of the taps that lie inside; class 0 has all of them. Rows of a class
 * follow each other, as the first and the last of these taps do. */
static int classify(const struct axis *axis, int in, int kernel, int stride, int dilation, int *classes,
                    struct range *ranges) {
  int count = 1;
  ranges[0] = (struct range){0, kernel};
  for (int i = 0; i < axis->out; i++) {
    const int64_t start = (int64_t)i * stride - axis->padding;
    const struct range r = {at_most(divide_up(-start, dilation), kernel), at_most(divide_up(in - start, dilation), kernel)};
    if (same_range(r, ranges[0])) {
      classes[i] = 0;
      continue;
    }
    if (count == 1 || !same_range(r, ranges[count - 1])) ranges[count++] = r;
    classes[i] = count - 1;
  }
  return count;
}

static bool prepare_borders(struct convolution *conv, const struct buffer *input) {
  const struct window *w = &conv->window;
  const size_t width = (size_t)round_up(conv->period, UNIT);
  free(conv->borders);
  free(conv->row_class);
  free(conv->column_class);
  conv->borders = NULL;
  conv->row_class = allocate((uint64_t)conv->rows.out, sizeof(int));
  conv->column_class = allocate((uint64_t)conv->columns.out, sizeof(int));
  struct range *rows = allocate((uint64_t)conv->rows.out + 1, sizeof *rows);
  struct range *columns = allocate((uint64_t)conv->columns.out + 1, sizeof *columns);
  if (conv->row_class && conv->column_class && rows && columns) {
    const int row_classes = classify(&conv->rows, input->h, w->height, w->stride_height, w->dilation_height,
                                     conv->row_class, rows);
    conv->column_classes = classify(&conv->columns, input->w, w->width, w->stride_width, w->dilation_width,
                                    conv->column_class, columns);
    conv->borders = allocate((uint64_t)row_classes * (uint64_t)conv->column_classes, width * sizeof(float));
    conv->border_bytes = (size_t)row_classes * (size_t)conv->column_classes * width * sizeof(float);
    for (int r = 0; conv->borders && r < row_classes; r++)
      for (int c = 0; c < conv->column_classes; c++) {
        if (r == 0 && c == 0) continue; /* all taps inside */
        float *border = conv->borders + ((size_t)r * (size_t)conv->column_classes + (size_t)c) * width;
        struct range inner_rows = r ? rows[r] : conv->rows.taps, inner_columns = c ? columns[c] : conv->columns.taps;
        for (int o = 0; o < conv->period; o++) {
          const int output = o % conv->channels_out;
          border[o] = conv->multiplier[o] *
                      (float)(conv->all_sums[output] - sum_of(conv, output, inner_rows, inner_columns));
        }
      }
  }
  free(rows);
  free(columns);
  return conv->borders;
}

bool prepare_convolution(struct convolution *conv, const struct buffer *input) {
  const struct window *w = &conv->window;
  if (!lay_out_taps(conv)) return false;
  const int left = input->external ? conv->columns.before : input->left;
  const int right = input->external ? conv->columns.behind : input->right;
  const int64_t row = ((int64_t)left + input->w + right) * input->pixel_words;
  for (int t = 0; t < conv->gemm.taps; t++) {
    const int columns = length(conv->columns.taps);
    const int64_t offset =
        (int64_t)(t / columns) * w->dilation_height * row + (int64_t)(t % columns) * w->dilation_width * input->pixel_words;
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
