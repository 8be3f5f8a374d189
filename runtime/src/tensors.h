/* What TFLite says of a tensor. */
#ifndef LARQ_REP_TENSORS_H
#define LARQ_REP_TENSORS_H

#include "tflite.h"

/* Whether a tensor has an index, and dimensions, that can be used. */
bool valid_tensor(const TfLiteContext *context, int tensor);

/* Whether a tensor's value stands in the file. */
bool is_constant(const TfLiteContext *context, int tensor);

/* "" where there is none. */
const char *tensor_name(const TfLiteContext *context, int tensor);

/* 0 of a tensor without dimensions. */
int last_dimension(const TfLiteTensor *tensor);

/* -1 where a dimension is negative, or they are more than an int holds. */
int64_t elements(const TfLiteTensor *tensor);

#endif
