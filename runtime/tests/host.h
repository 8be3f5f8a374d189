/* What the tests' hosts have in common: they stand for TFLite around the delegate. */
#ifndef LARQ_REP_TESTS_HOST_H
#define LARQ_REP_TESTS_HOST_H

#include <stdlib.h>
#include <string.h>

#include "../src/tflite.h"

/* What context.impl_ points to: the first member of every host. */
struct host_graph {
  TfLiteNode *nodes;
  TfLiteRegistration *registrations;
  TfLiteIntArray *plan;
};

static inline TfLiteStatus get_plan(TfLiteContext *context, TfLiteIntArray **plan) {
  *plan = ((struct host_graph *)context->impl_)->plan;
  return kTfLiteOk;
}

static inline TfLiteStatus get_node(TfLiteContext *context, int index, TfLiteNode **node,
                                    TfLiteRegistration **registration) {
  const struct host_graph *graph = context->impl_;
  *node = &graph->nodes[index];
  *registration = &graph->registrations[index];
  return kTfLiteOk;
}

/* To be freed; zeros where `values` is NULL. */
static inline TfLiteIntArray *int_array(int size, const int *values) {
  TfLiteIntArray *a = calloc(1, sizeof *a + (size_t)size * sizeof(int));
  a->size = size;
  if (values && size) memcpy(a->data, values, (size_t)size * sizeof(int));
  return a;
}

static inline int put16(uint8_t *out, int value) {
  out[0] = (uint8_t)value;
  out[1] = (uint8_t)(value >> 8);
  return 2;
}

/* A flexbuffer map of integers below 2^15, with sorted keys, as LCE writes its options; its size. */
static inline int flexbuffer(uint8_t *out, int count, const char *const *keys, const int *values) {
  int size = 0, places[16];
  for (int i = 0; i < count; i++) {
    places[i] = size;
    memcpy(out + size, keys[i], strlen(keys[i]) + 1);
    size += (int)strlen(keys[i]) + 1;
  }
  out[size++] = (uint8_t)count;
  const int vector = size;
  for (int i = 0; i < count; i++, size++) out[size] = (uint8_t)(size - places[i]);
  /* The map itself has numbers of two bytes. */
  size += put16(out + size, size - vector);
  size += put16(out + size, 1); /* width of the keys' offsets */
  size += put16(out + size, count);
  const int map = size;
  for (int i = 0; i < count; i++) size += put16(out + size, values[i]);
  for (int i = 0; i < count; i++) out[size++] = 1 << 2 | 1; /* INT of two bytes */
  out[size] = (uint8_t)(size - map);
  size++;
  out[size++] = 9 << 2 | 1; /* MAP of two bytes */
  out[size++] = 1;
  return size;
}

#endif
