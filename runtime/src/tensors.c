#include "tensors.h"

#include <limits.h>
#include <math.h>

#include "delegate.h"

bool valid_tensor(const TfLiteContext *context, int tensor) {
  return tensor >= 0 && (size_t)tensor < context->tensors_size && context->tensors[tensor].dims &&
         context->tensors[tensor].dims->size <= MAX_RANK;
}

bool is_constant(const TfLiteContext *context, int tensor) {
  const TfLiteTensor *t = &context->tensors[tensor];
  return t->allocation_type == kTfLiteMmapRo && t->data.data;
}

const char *tensor_name(const TfLiteContext *context, int tensor) {
  const bool named = tensor >= 0 && (size_t)tensor < context->tensors_size && context->tensors[tensor].name;
  return named ? context->tensors[tensor].name : "";
}

bool is_quantized(const TfLiteTensor *tensor) {
  const TfLiteQuantizationParams *params = &tensor->params;
  return tensor->type == kTfLiteInt8 && params->scale > 0 && isnormal(params->scale) && isnormal(1 / params->scale) &&
         params->zero_point >= INT8_MIN && params->zero_point <= INT8_MAX;
}

int last_dimension(const TfLiteTensor *tensor) {
  return tensor->dims && tensor->dims->size > 0 ? tensor->dims->data[tensor->dims->size - 1] : 0;
}

int64_t elements(const TfLiteTensor *tensor) {
  int64_t count = 1;
  for (int i = 0; tensor->dims && i < tensor->dims->size; i++) {
    const int d = tensor->dims->data[i];
    if (d < 0 || (d > 0 && count > INT_MAX / d)) return -1;
    count *= d;
  }
  return count;
}
