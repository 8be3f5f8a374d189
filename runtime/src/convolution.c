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

void *allocate(size_t count, size_t size) {
  void *memory = NULL;
  if (count > SIZE_MAX / 2 / (size ? size : 1) || posix_memalign(&memory, 64, count * size + 64)) return NULL;
  memset(memory, 0, count * size + 64);
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

static uint32_t filter_word(const struct convolution *conv, const struct values *filter, int output, int tap, int i) {
  const size_t taps = (size_t)conv->gemm.taps, words = (size_t)conv->gemm.words;
  return filter->data[filter->step * (((size_t)output * taps + (size_t)tap) * words + (size_t)i)];
}

static void pack(struct convolution *conv, const struct kernels *kernels, const struct values *filter) {
  struct gemm *gemm = &conv->gemm;
  const int per_group = conv->channels_out / gemm->groups;
  const int steps_of_tap = (gemm->words + kernels->step_words - 1) / kernels->step_words;
  for (int o = 0; o < conv->channels_out; o++) {
    const int group = o / per_group, vector = o % per_group / kernels->lanes, lane = o % per_group % kernels->lanes;
    uint32_t *to = conv->weights + (size_t)(group * gemm->vectors + vector) * gemm->vector_words;
    for (int t = 0; t < gemm->taps; t++)
      for (int i = 0; i < gemm->words; i++) {
        const int step = t * steps_of_tap + i / kernels->step_words;
        const uint32_t word = filter_word(conv, filter, o, t, i);
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

struct convolution *make_convolution(TfLiteContext *context, const struct operator * op, const struct kernels *kernels) {
  const TfLiteTensor *filter = &context->tensors[op->inputs->data[1]], *y = &context->tensors[op->outputs->data[0]];
  struct convolution *conv = calloc(1, sizeof *conv);
  if (!conv) return NULL;
  conv->window = op->window;
  conv->channels_in = op->channels_in;
  conv->channels_out = filter->dims->data[0];
  conv->pad_zero = op->window.same && op->pad_values == 0;
  struct gemm *gemm = &conv->gemm;
  gemm->taps = op->window.height * op->window.width;
  gemm->words = filter->dims->data[3];
  gemm->groups = round_up(op->channels_in, 32) / 32 / gemm->words;
  const int per_group = conv->channels_out / gemm->groups;
  gemm->vectors = (per_group + kernels->lanes - 1) / kernels->lanes;
  gemm->vector_words = (size_t)gemm->taps * (size_t)round_up(gemm->words, kernels->step_words) * (size_t)kernels->lanes *
                       (kernels->nibbles ? 2 : 1);
  conv->acc_stride = (size_t)round_up(gemm->groups * gemm->vectors * kernels->lanes, UNIT);
  conv->tile_pixels = tile_of(kernels, gemm->vectors);

  conv->period = conv->channels_out;

  const size_t vectors = (size_t)gemm->groups * (size_t)gemm->vectors;
  const size_t channels = (size_t)round_up(conv->channels_out, UNIT);
  conv->weights = allocate(vectors, gemm->vector_words * sizeof(uint32_t));
  conv->tap_offsets = allocate((size_t)gemm->taps, sizeof(int32_t));
  conv->scale = allocate(channels, sizeof(float));
  conv->shift = allocate(channels, sizeof(float));
  conv->multiplier = allocate(channels, sizeof(float));
  conv->sums = conv->pad_zero ? allocate((size_t)gemm->taps * channels, sizeof(int32_t)) : NULL;
  if (!conv->weights || !conv->tap_offsets || !conv->scale || !conv->shift || !conv->multiplier ||
      (conv->pad_zero && !conv->sums)) {
    free_convolution(conv);
    return NULL;
  }
  pack(conv, kernels, &op->values[1]);
  gemm->weights = conv->weights;
  gemm->tap_offsets = conv->tap_offsets;

  const int channels_of_group = conv->channels_in / gemm->groups;
  const double K = (double)gemm->taps * channels_of_group;
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
    for (int t = 0; conv->sums && t < gemm->taps; t++) {
      int negative = 0;
      for (int i = 0; i < gemm->words; i++) negative += __builtin_popcount(filter_word(conv, &op->values[1], o, t, i));
      conv->sums[(size_t)t * channels + (size_t)o] = channels_of_group - 2 * negative;
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
  free(conv->weights);
  free(conv->tap_offsets);
  free(conv->scale);
  free(conv->shift);
  free(conv->multiplier);
  free(conv->sums);
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
  const size_t channels = (size_t)round_up(conv->channels_out, UNIT), width = (size_t)round_up(conv->period, UNIT);
  return 4 * (3 * width + (size_t)conv->gemm.taps * (conv->sums ? channels + 1 : 1)) + conv->border_bytes +
         conv->padded_bytes;
}

struct range {
  int first, end;
};

/* Gives each output row (or column) the class of the taps that lie inside; class 0 has all of them. */
static int classify(int out, int in, int kernel, int stride, int dilation, int before, int *classes,
                    struct range *ranges) {
  int count = 1;
  ranges[0] = (struct range){0, kernel};
  for (int i = 0; i < out; i++) {
    const int64_t start = (int64_t)i * stride - before;
    struct range r = {kernel, 0};
    for (int k = 0; k < kernel; k++) {
      const int64_t at = start + (int64_t)k * dilation;
      if (at < 0 || at >= in) continue;
      if (k < r.first) r.first = k;
      r.end = k + 1;
    }
    int c = 0;
    while (c < count && (ranges[c].first != r.first || ranges[c].end != r.end)) c++;
    if (c == count) ranges[count++] = r;
    classes[i] = c;
  }
  return count;
}

static TfLiteStatus prepare_borders(struct convolution *conv, const struct buffer *input, int out_height,
                                    int out_width) {
  const struct window *w = &conv->window;
  const size_t channels = (size_t)round_up(conv->channels_out, UNIT), width = (size_t)round_up(conv->period, UNIT);
  free(conv->borders);
  free(conv->row_class);
  free(conv->column_class);
  conv->borders = NULL;
  conv->row_class = allocate((size_t)out_height, sizeof(int));
  conv->column_class = allocate((size_t)out_width, sizeof(int));
  struct range *rows = allocate((size_t)out_height + 1, sizeof *rows);
  struct range *columns = allocate((size_t)out_width + 1, sizeof *columns);
  TfLiteStatus status = kTfLiteError;
  if (conv->row_class && conv->column_class && rows && columns) {
    const int row_classes = classify(out_height, input->h, w->height, w->stride_height, w->dilation_height,
                                     conv->top, conv->row_class, rows);
    conv->column_classes = classify(out_width, input->w, w->width, w->stride_width, w->dilation_width, conv->left,
                                    conv->column_class, columns);
    conv->border_bytes = (size_t)row_classes * (size_t)conv->column_classes * width * sizeof(float);
    conv->borders = allocate(conv->border_bytes, 1);
    for (int r = 0; conv->borders && r < row_classes; r++)
      for (int c = 0; c < conv->column_classes; c++) {
        float *border = conv->borders + (size_t)(r * conv->column_classes + c) * width;
        for (int o = 0; o < conv->period; o++) {
          int64_t outside = 0;
          for (int ky = 0; ky < w->height; ky++)
            for (int kx = 0; kx < w->width; kx++)
              if (ky < rows[r].first || ky >= rows[r].end || kx < columns[c].first || kx >= columns[c].end)
                outside += conv->sums[(size_t)(ky * w->width + kx) * channels + (size_t)(o % conv->channels_out)];
          border[o] = conv->multiplier[o] * (float)outside;
        }
      }
    if (conv->borders) status = kTfLiteOk;
  }
  free(rows);
  free(columns);
  return status;
}

static int behind(int out, int in, int kernel, int stride, int dilation, int before) {
  const int64_t last = (int64_t)(out - 1) * stride - before + (int64_t)(kernel - 1) * dilation;
  return last >= in ? (int)(last - in + 1) : 0;
}

bool place_windows(struct convolution *conv, const struct buffer *input, int *out_height, int *out_width) {
  const struct window *w = &conv->window;
  if (!output_size(input->h, w->height, w->stride_height, w->dilation_height, w->same, out_height, &conv->top) ||
      !output_size(input->w, w->width, w->stride_width, w->dilation_width, w->same, out_width, &conv->left))
    return false;
  conv->bottom = behind(*out_height, input->h, w->height, w->stride_height, w->dilation_height, conv->top);
  conv->right = behind(*out_width, input->w, w->width, w->stride_width, w->dilation_width, conv->left);
  return true;
}

TfLiteStatus prepare_convolution(struct convolution *conv, const struct buffer *input, int out_height, int out_width) {
  const struct window *w = &conv->window;
  const int left = input->external ? conv->left : input->left, right = input->external ? conv->right : input->right;
  const int64_t row = ((int64_t)left + input->w + right) * input->pixel_words;
  for (int ky = 0; ky < w->height; ky++)
    for (int kx = 0; kx < w->width; kx++) {
      const int64_t offset =
          ky * w->dilation_height * row + (int64_t)kx * w->dilation_width * input->pixel_words;
      if (offset > INT32_MAX) return kTfLiteError;
      conv->tap_offsets[ky * w->width + kx] = (int32_t)offset;
    }
  free(conv->padded);
  conv->padded = NULL;
  conv->padded_bytes = 0;
  if (input->external && (conv->top || conv->left || conv->bottom || conv->right)) {
    conv->padded_bytes = (size_t)input->n * (size_t)(conv->top + input->h + conv->bottom) * (size_t)row * sizeof(uint32_t);
    conv->padded = allocate(conv->padded_bytes, 1);
    if (!conv->padded) return kTfLiteError;
  }
  const bool outside = conv->pad_zero && (w->height > 1 || w->width > 1);
  return outside ? prepare_borders(conv, input, out_height, out_width) : kTfLiteOk;
}
