#include "windows.h"

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

static int64_t divide_up(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : 0; }

static int at_most(int64_t value, int most) { return value < most ? (int)value : most; }

struct axis place_axis(int in, int kernel, int stride, int dilation, bool same) {
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

struct range taps_inside(const struct axis *axis, int in, int kernel, int stride, int dilation, int index) {
  const int64_t start = (int64_t)index * stride - axis->padding;
  return (struct range){at_most(divide_up(-start, dilation), kernel), at_most(divide_up(in - start, dilation), kernel)};
}
