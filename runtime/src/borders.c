#include "borders.h"

#include <stdlib.h>

#include "memory.h"
#include "weights.h"

bool sum_weights(struct convolution *conv) {
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
        int32_t *to = conv->sums +
                      ((size_t)(y - rows.first + 1) * across + (size_t)(x - columns.first + 1)) * channels + (size_t)o;
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

/* Gives each output row (or column) the class of the taps that lie inside; class 0 has all taps. Rows of a class
 * are contiguous, because the first and last tap inside move in one direction. */
static int classify(const struct axis *axis, int in, int kernel, int stride, int dilation, int *classes,
                    struct range *ranges) {
  int count = 1;
  ranges[0] = (struct range){0, kernel};
  for (int i = 0; i < axis->out; i++) {
    const struct range r = taps_inside(axis, in, kernel, stride, dilation, i);
    if (same_range(r, ranges[0])) {
      classes[i] = 0;
      continue;
    }
    if (count == 1 || !same_range(r, ranges[count - 1])) ranges[count++] = r;
    classes[i] = count - 1;
  }
  return count;
}

bool prepare_borders(struct convolution *conv, const struct buffer *input) {
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
    const int row_classes =
        classify(&conv->rows, input->h, w->height, w->stride_height, w->dilation_height, conv->row_class, rows);
    conv->column_classes =
        classify(&conv->columns, input->w, w->width, w->stride_width, w->dilation_width, conv->column_class, columns);
    conv->borders = allocate((uint64_t)row_classes * (uint64_t)conv->column_classes, width * sizeof(float));
    conv->border_bytes = (size_t)row_classes * (size_t)conv->column_classes * width * sizeof(float);
    for (int r = 0; conv->borders && r < row_classes; r++)
      for (int c = 0; c < conv->column_classes; c++) {
        if (r == 0 && c == 0) continue; /* all taps inside */
        float *border = conv->borders + ((size_t)r * (size_t)conv->column_classes + (size_t)c) * width;
        struct range inner_rows = r ? rows[r] : conv->rows.taps, inner_columns = c ? columns[c] : conv->columns.taps;
        for (int o = 0; o < conv->period; o++) {
          const int output = o % conv->channels_out;
          border[o] =
              conv->multiplier[o] * (float)(conv->all_sums[output] - sum_of(conv, output, inner_rows, inner_columns));
        }
      }
  }
  free(rows);
  free(columns);
  return conv->borders;
}
