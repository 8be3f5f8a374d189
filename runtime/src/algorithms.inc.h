/* The two algorithms, written once. A file of an instruction set defines
 *
 *   FLOATS, vfloat, vload, vstore, vset1, vadd, vsub, vmul, vmin, vmax, vprelu(v, slope), vconvert(const int32_t *)
 *   vsigns(const vfloat[UNIT / FLOATS]) -> uint32_t
 *   GEMM_TILE(P, O): a function accumulating P pixels by O vectors, and TILES: the table of them
 *
 * and includes this one.
 */
#include <string.h>

#include "kernels.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
enum { VECTORS = UNIT / FLOATS };

/* One unit may be incomplete: then memory beyond its `rest` channels is neither read nor written. */
ALWAYS_INLINE void load_unit(vfloat *v, const char *data, int rest) {
  if (rest == UNIT) {
    for (int i = 0; i < VECTORS; i++) v[i] = vload((const float *)(const void *)data + i * FLOATS);
  } else {
    float padded[UNIT] = {0};
    memcpy(padded, data, (size_t)rest * sizeof(float));
    for (int i = 0; i < VECTORS; i++) v[i] = vload(padded + i * FLOATS);
  }
}

ALWAYS_INLINE void store_unit(const vfloat *v, char *data, int rest) {
  if (rest == UNIT) {
    for (int i = 0; i < VECTORS; i++) vstore((float *)(void *)data + i * FLOATS, v[i]);
  } else {
    float padded[UNIT];
    for (int i = 0; i < VECTORS; i++) vstore(padded + i * FLOATS, v[i]);
    memcpy(data, padded, (size_t)rest * sizeof(float));
  }
}

ALWAYS_INLINE int8_t round_int8(float v) {
  v = v < -128.0f ? -128.0f : v > 127.0f ? 127.0f : v;
  return (int8_t)(v + (v < 0 ? -0.5f : 0.5f));
}

/* Runs the program for `units` units of one pixel; all of v stays in registers. */
ALWAYS_INLINE void run_units(const struct instruction *program, int count, int pixel, int unit, const int units,
                             int rest) {
  enum { MOST = 4 * VECTORS };
  vfloat v[MOST];
  vfloat w[VECTORS];
  const int vectors = units * VECTORS;
  const int channel = unit * UNIT;
  for (int i = 0; i < vectors; i++) v[i] = vset1(0.0f);

#define LOADED(statement)                                                                                 \
  for (int u = 0; u < units; u++) {                                                                       \
    load_unit(w, data + (channel + u * UNIT) * 4, rest);                                                  \
    for (int j = 0; j < VECTORS; j++) {                                                                   \
      const int i = u * VECTORS + j;                                                                      \
      statement;                                                                                          \
    }                                                                                                     \
  }                                                                                                       \
  break
#define LOADED_TILED(statement)                                                                           \
  for (int u = 0; u < units; u++) {                                                                       \
    load_unit(w, data + op->tile[unit + u] * 4, UNIT);                                                    \
    for (int j = 0; j < VECTORS; j++) {                                                                   \
      const int i = u * VECTORS + j;                                                                      \
      statement;                                                                                          \
    }                                                                                                     \
  }                                                                                                       \
  break
#define CONSTANT(expression)                                                                              \
  for (int i = 0; i < vectors; i++) {                                                                     \
    const vfloat c = vload(op->constant + channel + i * FLOATS);                                          \
    v[i] = expression;                                                                                    \
  }                                                                                                       \
  break

  for (const struct instruction *op = program; op < program + count; op++) {
    char *data = op->data + pixel * op->stride;
    switch (op->code) {
      case OP_ACCUMULATED:
      case OP_CLAMPED: {
        const int32_t *acc = (const int32_t *)(const void *)data + channel;
        const float *border = op->border ? op->border[pixel] : NULL;
        for (int i = 0; i < vectors; i++) {
          vfloat y = vconvert(acc + i * FLOATS);
          y = vadd(y, y);
          if (op->code == OP_CLAMPED) y = vmin(vmax(y, vset1(op->low)), vset1(op->high));
          v[i] = vadd(vmul(y, vload(op->scale + channel + i * FLOATS)), vload(op->constant + channel + i * FLOATS));
        }
        if (border)
          for (int i = 0; i < vectors; i++) v[i] = vadd(v[i], vload(border + channel + i * FLOATS));
        break;
      }
      case OP_LOAD:
        LOADED(v[i] = w[j]);
      case OP_LOAD_TILED:
        LOADED_TILED(v[i] = w[j]);
      case OP_LOAD_INT8:
      case OP_LOAD_BOOL:
        for (int u = 0; u < units; u++) {
          float converted[UNIT] = {0};
          const char *bytes = data + channel + u * UNIT;
          for (int c = 0; c < rest; c++)
            converted[c] = op->code == OP_LOAD_BOOL ? (bytes[c] ? 1.0f : -1.0f) : (float)(int8_t)bytes[c] - op->low;
          for (int j = 0; j < VECTORS; j++) v[u * VECTORS + j] = vload(converted + j * FLOATS);
        }
        break;
      case OP_ADD:
        CONSTANT(vadd(v[i], c));
      case OP_SUBTRACT:
        CONSTANT(vsub(v[i], c));
      case OP_SUBTRACT_FROM:
        CONSTANT(vsub(c, v[i]));
      case OP_MULTIPLY:
        CONSTANT(vmul(v[i], c));
      case OP_PRELU:
        CONSTANT(vprelu(v[i], c));
      case OP_CLIP:
        for (int i = 0; i < vectors; i++) v[i] = vmin(vmax(v[i], vset1(op->low)), vset1(op->high));
        break;
      case OP_SCALE:
        for (int i = 0; i < vectors; i++) v[i] = vmul(v[i], vset1(op->low));
        break;
      case OP_ADD_LOADED:
        LOADED(v[i] = vadd(v[i], w[j]));
      case OP_ADD_LOADED_TILED:
        LOADED_TILED(v[i] = vadd(v[i], w[j]));
      case OP_SUBTRACT_LOADED:
        LOADED(v[i] = vsub(v[i], w[j]));
      case OP_SUBTRACT_FROM_LOADED:
        LOADED(v[i] = vsub(w[j], v[i]));
      case OP_MULTIPLY_LOADED:
        LOADED(v[i] = vmul(v[i], w[j]));
      case OP_STORE:
        for (int u = 0; u < units; u++) store_unit(v + u * VECTORS, data + (channel + u * UNIT) * 4, rest);
        break;
      case OP_STORE_INT8:
        for (int u = 0; u < units; u++) {
          float values[UNIT];
          for (int j = 0; j < VECTORS; j++) vstore(values + j * FLOATS, v[u * VECTORS + j]);
          for (int c = 0; c < rest; c++) data[channel + u * UNIT + c] = (char)round_int8(values[c]);
        }
        break;
      case OP_STORE_SIGNS:
        for (int u = 0; u < units; u++) {
          uint32_t word = vsigns(v + u * VECTORS);
          if (rest < UNIT) word &= (1u << rest) - 1;
          memcpy(data + (unit + u) * 4, &word, 4);
        }
        break;
    }
  }
#undef LOADED
#undef LOADED_TILED
#undef CONSTANT
}

/* As many units at once as leave a few registers free. */
static void run(const struct instruction *program, int count, int channels, int pixels) {
  const int whole = channels / UNIT;
  for (int pixel = 0; pixel < pixels; pixel++) {
    int unit = 0;
    if (UNITS_AT_ONCE >= 4)
      for (; unit + 4 <= whole; unit += 4) run_units(program, count, pixel, unit, 4, UNIT);
    if (UNITS_AT_ONCE >= 2)
      for (; unit + 2 <= whole; unit += 2) run_units(program, count, pixel, unit, 2, UNIT);
    for (; unit < whole; unit++) run_units(program, count, pixel, unit, 1, UNIT);
    if (channels % UNIT) run_units(program, count, pixel, unit, 1, channels % UNIT);
  }
}

typedef void (*tile_function)(const struct gemm *gemm, const uint32_t *const *x, int group_offset,
                              const uint32_t *weights, int32_t *acc, size_t acc_stride);

/* Goes through the output channels in the widest tiles there are. */
ALWAYS_INLINE void accumulate_all(const struct gemm *gemm, const uint32_t *const *x, int32_t *acc, size_t acc_stride,
                                  int lanes, tile_function four, tile_function two, tile_function one) {
  const uint32_t *weights = gemm->weights;
  for (int group = 0; group < gemm->groups; group++) {
    for (int vector = 0; vector < gemm->vectors;) {
      const int left = gemm->vectors - vector;
      const int width = left >= 4 && four ? 4 : left >= 2 && two ? 2 : 1;
      (width == 4 ? four : width == 2 ? two : one)(gemm, x, group * gemm->words, weights, acc, acc_stride);
      weights += (size_t)width * gemm->vector_words;
      acc += width * lanes;
      vector += width;
    }
  }
}
