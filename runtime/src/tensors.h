/* Properties of TFLite's tensors. */
#ifndef LARQ_REP_TENSORS_H
#define LARQ_REP_TENSORS_H

#include "tflite.h"

/* Whether a tensor has a valid index and valid dimensions. */
bool valid_tensor(const TfLiteContext *context, int tensor);

/* Whether a tensor's value is in the file. */
bool is_constant(const TfLiteContext *context, int tensor);

/* "" if it has no name. */
const char *tensor_name(const TfLiteContext *context, int tensor);

/* Whether an 8-bit tensor has one scale, such that its inverse is normal too, and a zero point among its integers. */
bool is_quantized(const TfLiteTensor *tensor);

/* 0 for a tensor without dimensions. */
int last_dimension(const TfLiteTensor *tensor);

/* -1 if a dimension is negative, or there are more than an int holds. */
int64_t elements(const TfLiteTensor *tensor);

#endif
