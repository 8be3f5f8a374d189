/* Windows along one axis of an image. */
#ifndef LARQ_REP_WINDOWS_H
#define LARQ_REP_WINDOWS_H

#include "delegate.h"

/* Taps that do not meet the image in any window are left out, so that borders are never wider than the image,
 * whatever dilation and filter a file asks for. */
struct axis {
  int out;
  int padding;        /* before the image, that SAME begins with */
  struct range taps;  /* those that meet the image */
  int start;          /* of the first of them in the first window, from the image's first pixel */
  int before, behind; /* pixels outside the image that they reach */
};

/* Length of an output axis and the padding before it; false if the window does not fit. */
bool output_size(int in, int kernel, int stride, int dilation, bool same, int *out, int *before);

struct axis place_axis(int in, int kernel, int stride, int dilation, bool same);

/* The taps of the window with this output index that lie inside the image. */
struct range taps_inside(const struct axis *axis, int in, int kernel, int stride, int dilation, int index);

#endif
