/* The two algorithms, written once. The file of an instruction set defines
 *
 *   FLOATS, vfloat, vload, vstore, vset1, vadd, vsub, vmul, vmin, vmax, vprelu(v, slope), vconvert(const int32_t *)
 *   vfall(v, slope): vprelu for slopes above 0 and up to 1
 *   vword, vbelow(word, i, v, threshold), vbits(word): the word of a unit after its vector i (from 0 on, in order) was
 *   compared, and its bits
 *   vload_int8(vfloat[UNIT / FLOATS], const char *), vstore_int8(char *, const vfloat[UNIT / FLOATS]): a unit of 8-bit
 *   integers; numbers from -128 to 127 are stored without their fractions
 *   BLOCKS_AT_ONCE: units of all pixels a program handles together
 *   for programs in straight-line code, if it has them, VECTORS_AT_ONCE: whose constants fit in its registers, or
 *   PIXELS_AT_ONCE and vhide(pointer): which makes the compiler keep a pointer instead of its way there
 *
 * and includes this one. Its `accumulate` calls accumulate_all or accumulate_prepared with a table of tiles.
 */
#include <string.h>

#include "kernels.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
/* Arrays of vectors are registers: all their loops are unrolled. */
#define UNROLL _Pragma("GCC unroll 32")
enum { VECTORS = UNIT / FLOATS };
_Static_assert(UNIT % FLOATS == 0, "a unit is a number of whole vectors");

/* A unit may be incomplete: then memory beyond its `rest` channels is neither read nor written. */
ALWAYS_INLINE void load_unit(vfloat *v, const char *data, int rest) {
  if (rest == UNIT) {
    UNROLL for (int i = 0; i < VECTORS; i++) v[i] = vload((const float *)(const void *)data + i * FLOATS);
  } else {
    float padded[UNIT] = {0};
    memcpy(padded, data, (size_t)rest * sizeof(float));
    UNROLL for (int i = 0; i < VECTORS; i++) v[i] = vload(padded + i * FLOATS);
  }
}

ALWAYS_INLINE void store_unit(const vfloat *v, char *data, int rest) {
  if (rest == UNIT) {
    UNROLL for (int i = 0; i < VECTORS; i++) vstore((float *)(void *)data + i * FLOATS, v[i]);
  } else {
    float padded[UNIT];
    UNROLL for (int i = 0; i < VECTORS; i++) vstore(padded + i * FLOATS, v[i]);
    memcpy(data, padded, (size_t)rest * sizeof(float));
  }
}

/* Rare, and therefore not inlined everywhere. */
static __attribute__((noinline)) void from_signs(float *v, const char *signs) {
  uint32_t word;
  memcpy(&word, signs, 4);
  for (int c = 0; c < UNIT; c++) v[c] = 1.0f - 2.0f * (float)(word >> c & 1);
}

static __attribute__((noinline)) void from_bools(float *v, const char *bools, int rest) {
  for (int c = 0; c < rest; c++) v[c] = bools[c] ? 1.0f : -1.0f;
}

ALWAYS_INLINE void load_int8_unit(vfloat *v, const char *data, const struct instruction *op, int rest) {
  char padded[UNIT] = {0};
  if (rest < UNIT) data = memcpy(padded, data, (size_t)rest);
  vload_int8(v, data);
  UNROLL for (int i = 0; i < VECTORS; i++) v[i] = vmul(vsub(v[i], vset1(op->low)), vset1(op->high));
}

/* Integers as floats, from -128 to 127. */
ALWAYS_INLINE void store_int8_unit(const vfloat *v, char *data, int rest) {
  char padded[UNIT];
  vstore_int8(rest == UNIT ? data : padded, v);
  if (rest < UNIT) memcpy(data, padded, (size_t)rest);
}

ALWAYS_INLINE vfloat vclip(vfloat v, float low, float high) { return vmin(vmax(v, vset1(low)), vset1(high)); }

/* What has v rounded half away from zero before its point: v is moved away by the number before 1/2, or by 2v, which
 * changes nothing near 0. */
ALWAYS_INLINE vfloat round_away(vfloat v) {
  const float half = 0x1.fffffep-2f;
  return vadd(v, vclip(vadd(v, v), -half, half));
}

/* v rounded half to even: the sum has no digits behind the point. */
ALWAYS_INLINE vfloat round_even(vfloat v) {
  const vfloat large = vset1(0x1.8p23f);
  return vsub(vadd(v, large), large);
}

/* One operation on v; w is its constant, or what it loads. */
ALWAYS_INLINE vfloat compute(const enum opcode code, const struct instruction *op, vfloat v, vfloat w) {
  switch (code) {
    case OP_ADD:
    case OP_ADD_LOADED:
    case OP_ADD_LOADED_REPEATED:
    case OP_ADD_LOADED_INT8:
      return vadd(v, w);
    case OP_SUBTRACT:
    case OP_SUBTRACT_LOADED:
      return vsub(v, w);
    case OP_SUBTRACT_FROM:
    case OP_SUBTRACT_FROM_LOADED:
      return vsub(w, v);
    case OP_MULTIPLY:
    case OP_MULTIPLY_LOADED:
      return vmul(v, w);
    case OP_PRELU:
      return vprelu(v, w);
    case OP_FALL:
      return vfall(v, w);
    case OP_MIN_LOADED:
      return vmin(v, w);
    case OP_MAX_LOADED:
      return vmax(w, v);
    case OP_CLIP:
      return vmin(vset1(op->high), vmax(vset1(op->low), v)); /* NaN stays: both give their second operand */
    case OP_AT_LEAST:
      return vmax(v, vset1(op->low));
    case OP_NEGATE:
      return vsub(vset1(-0.0f), v);
    case OP_IS_POSITIVE: /* the smallest number that is not subnormal becomes 2 */
      return vsub(vmin(vmul(vmax(v, vset1(0.0f)), vset1(0x1p127f)), vset1(2.0f)), vset1(1.0f));
    case OP_MEAN:
      return vadd(vmul(v, vset1(op->low)), vset1(0.0f));
    default: /* loads */
      return w;
  }
}

/* A convolution's result, from sums of some channels. */
ALWAYS_INLINE vfloat result(const enum opcode code, const struct instruction *op, const int32_t *sums, vfloat scale,
                            vfloat shift) {
  vfloat y = vconvert(sums);
  if (code == OP_CLAMPED) y = vmin(vmax(vadd(y, y), vset1(op->low)), vset1(op->high));
  return vadd(vmul(y, scale), shift);
}

/* The first channel that an instruction loads for a unit. */
ALWAYS_INLINE ptrdiff_t source_channel(const struct instruction *op, int unit) {
  return op->source_channels ? op->source_channels[unit] : (ptrdiff_t)unit * UNIT;
}

/* Runs the program for `units` units of `pixels` neighbouring pixels; all of v stays in registers. */
ALWAYS_INLINE void run_units(const struct instruction *program, int count, int pixel, int unit, const int pixels,
                             const int units, int rest) {
  vfloat v[4 * VECTORS]; /* more than any call uses */
  vfloat w[VECTORS];
  const int blocks = pixels * units;
  const int vectors = blocks * VECTORS;
  const ptrdiff_t channel = (ptrdiff_t)unit * UNIT;
  UNROLL for (int i = 0; i < vectors; i++) v[i] = vset1(0.0f);

/* b counts the units of all pixels; DATA is the start of that unit's floats, BYTES of its integers. */
#define DATA (data + b / units * op->stride + (channel + b % units * UNIT) * 4)
#define BYTES (data + b / units * op->stride + channel + b % units * UNIT)
#define REPEATED_DATA (data + b / units * op->stride + op->source_channels[unit + b % units] * 4)
#define LOADED(code, load)                       \
  case code:                                     \
    UNROLL for (int b = 0; b < blocks; b++) {    \
      load;                                      \
      UNROLL for (int j = 0; j < VECTORS; j++) { \
        const int i = b * VECTORS + j;           \
        v[i] = compute(code, op, v[i], w[j]);    \
      }                                          \
    }                                            \
    break
#define CONSTANT(code)                                             \
  case code:                                                       \
    UNROLL for (int k = 0; k < units * VECTORS; k++) {             \
      const vfloat c = vload(op->constant + channel + k * FLOATS); \
      UNROLL for (int p = 0; p < pixels; p++) {                    \
        const int i = p * units * VECTORS + k;                     \
        v[i] = compute(code, op, v[i], c);                         \
      }                                                            \
    }                                                              \
    break
#define EACH(code)                                                                        \
  case code:                                                                              \
    UNROLL for (int i = 0; i < vectors; i++) v[i] = compute(code, op, v[i], vset1(0.0f)); \
    break

  for (const struct instruction *op = program; op < program + count; op++) {
    char *data = (char *)((uintptr_t)op->data + (uintptr_t)(pixel * op->stride)); /* may be NULL and is then not used */
    switch (op->code) {
      case OP_ACCUMULATED:
      case OP_CLAMPED:
        UNROLL for (int u = 0; u < units; u++) {
          const ptrdiff_t from = source_channel(op, unit + u);
          UNROLL for (int j = 0; j < VECTORS; j++) {
            const vfloat scale = vload(op->scale + from + j * FLOATS), shift = vload(op->constant + from + j * FLOATS);
            UNROLL for (int p = 0; p < pixels; p++) {
              const int32_t *sums = (const int32_t *)(const void *)(data + p * op->stride) + from + j * FLOATS;
              v[(p * units + u) * VECTORS + j] = result(op->code, op, sums, scale, shift);
            }
          }
          UNROLL for (int p = 0; p < pixels; p++) {
            const float *border = op->border ? op->border[pixel + p] : NULL;
            if (!border) continue;
            UNROLL for (int j = 0; j < VECTORS; j++) {
              const int i = (p * units + u) * VECTORS + j;
              v[i] = vadd(v[i], vload(border + from + j * FLOATS));
            }
          }
        }
        break;
        LOADED(OP_LOAD, load_unit(w, DATA, rest));
        LOADED(OP_LOAD_REPEATED, load_unit(w, REPEATED_DATA, UNIT));
        LOADED(OP_LOAD_INT8, load_int8_unit(w, BYTES, op, rest));
      case OP_ADD_ACCUMULATED:
        UNROLL for (int k = 0; k < units * VECTORS; k++) {
          const ptrdiff_t from = channel + k * FLOATS;
          const vfloat scale = vload(op->scale + from), shift = vload(op->constant + from);
          UNROLL for (int p = 0; p < pixels; p++) {
            const int32_t *sums = (const int32_t *)(const void *)(data + p * op->stride) + from;
            const float *border = op->border ? op->border[pixel + p] : NULL;
            vfloat y = result(op->low < op->high ? OP_CLAMPED : OP_ACCUMULATED, op, sums, scale, shift);
            if (border) y = vadd(y, vload(border + from));
            v[p * units * VECTORS + k] = vadd(v[p * units * VECTORS + k], y);
          }
        }
        break;
      case OP_LOAD_SIGNS:
        UNROLL for (int b = 0; b < blocks; b++) {
          float converted[UNIT];
          from_signs(converted, data + b / units * op->stride + (unit + b % units) * 4);
          UNROLL for (int j = 0; j < VECTORS; j++) v[b * VECTORS + j] = vload(converted + j * FLOATS);
        }
        break;
      case OP_LOAD_BOOL:
        UNROLL for (int b = 0; b < blocks; b++) {
          float converted[UNIT] = {0};
          from_bools(converted, BYTES, rest);
          UNROLL for (int j = 0; j < VECTORS; j++) v[b * VECTORS + j] = vload(converted + j * FLOATS);
        }
        break;
        CONSTANT(OP_ADD);
        CONSTANT(OP_SUBTRACT);
        CONSTANT(OP_SUBTRACT_FROM);
        CONSTANT(OP_MULTIPLY);
        CONSTANT(OP_PRELU);
        CONSTANT(OP_FALL);
        EACH(OP_CLIP);
        EACH(OP_AT_LEAST);
        EACH(OP_NEGATE);
        EACH(OP_IS_POSITIVE);
        EACH(OP_MEAN);
        LOADED(OP_ADD_LOADED, load_unit(w, DATA, rest));
        LOADED(OP_ADD_LOADED_REPEATED, load_unit(w, REPEATED_DATA, UNIT));
        LOADED(OP_ADD_LOADED_INT8, load_int8_unit(w, BYTES, op, rest));
        LOADED(OP_SUBTRACT_LOADED, load_unit(w, DATA, rest));
        LOADED(OP_SUBTRACT_FROM_LOADED, load_unit(w, DATA, rest));
        LOADED(OP_MULTIPLY_LOADED, load_unit(w, DATA, rest));
        LOADED(OP_MIN_LOADED, load_unit(w, DATA, rest));
        LOADED(OP_MAX_LOADED, load_unit(w, DATA, rest));
      case OP_STORE:
        UNROLL for (int b = 0; b < blocks; b++) store_unit(v + b * VECTORS, DATA, rest);
        break;
      case OP_STORE_INT8:
        UNROLL for (int b = 0; b < blocks; b++) {
          UNROLL for (int j = 0; j < VECTORS; j++) w[j] = round_away(vclip(v[b * VECTORS + j], -128, 127));
          store_int8_unit(w, BYTES, rest);
        }
        break;
      case OP_STORE_QUANTIZED:
        UNROLL for (int b = 0; b < blocks; b++) {
          UNROLL for (int j = 0; j < VECTORS; j++) {
            const vfloat levels = vmul(v[b * VECTORS + j], vset1(op->low));
            w[j] = vadd(round_even(vclip(levels, -128 - op->high, 127 - op->high)), vset1(op->high));
          }
          store_int8_unit(w, BYTES, rest);
        }
        break;
      case OP_STORE_SIGNS:
        UNROLL for (int b = 0; b < blocks; b++) {
          vword packed = {0};
          UNROLL for (int j = 0; j < VECTORS; j++) packed =
              vbelow(packed, j, v[b * VECTORS + j], vload(op->constant + channel + b % units * UNIT + j * FLOATS));
          uint32_t word = vbits(packed);
          if (rest < UNIT) word &= (1u << rest) - 1;
          memcpy(data + b / units * op->stride + (unit + b % units) * 4, &word, 4);
        }
        break;
    }
  }
#undef DATA
#undef BYTES
#undef REPEATED_DATA
#undef LOADED
#undef CONSTANT
#undef EACH
}

/* Runs all units of `pixels` pixels, as many at once as the registers hold. */
ALWAYS_INLINE void run_pixels(const struct instruction *program, int count, int channels, int pixel, const int pixels) {
  const int whole = channels / UNIT, most = BLOCKS_AT_ONCE / pixels;
  int unit = 0;
  if (most >= 4)
    for (; unit + 4 <= whole; unit += 4) run_units(program, count, pixel, unit, pixels, 4, UNIT);
  if (most >= 2)
    for (; unit + 2 <= whole; unit += 2) run_units(program, count, pixel, unit, pixels, 2, UNIT);
  for (; unit < whole; unit++) run_units(program, count, pixel, unit, pixels, 1, UNIT);
  if (channels % UNIT) run_units(program, count, pixel, unit, pixels, 1, channels % UNIT);
}

/* Many pixels at once rather than many units: their constants are loaded once. */
static void run(const struct instruction *program, int count, int channels, int pixels) {
  int pixel = 0;
  if (BLOCKS_AT_ONCE >= 4)
    for (; pixel + 4 <= pixels; pixel += 4) run_pixels(program, count, channels, pixel, 4);
  if (BLOCKS_AT_ONCE >= 2)
    for (; pixel + 2 <= pixels; pixel += 2) run_pixels(program, count, channels, pixel, 2);
  for (; pixel < pixels; pixel++) run_pixels(program, count, channels, pixel, 1);
}

#if defined(VECTORS_AT_ONCE) || defined(PIXELS_AT_ONCE)
#include "straight.inc.h"
#else
static const struct straight straight_programs[] = {{.count = 0}};
#endif

typedef void (*tile_function)(const struct gemm *gemm, const uint32_t *const *x, int group_offset,
                              const uint32_t *weights, int32_t *acc, size_t acc_stride);

/* Goes through the output channels in the widest available tiles: of 8, 4, 2 and 1 vectors, or NULL. */
ALWAYS_INLINE void accumulate_all(const struct gemm *gemm, const uint32_t *const *x, int32_t *acc, size_t acc_stride,
                                  int lanes, const tile_function *tiles) {
  const uint32_t *weights = gemm->weights;
  for (int group = 0; group < gemm->groups; group++) {
    for (int left = gemm->vectors; left > 0;) {
      int i = 0;
      while (left < 8 >> i || !tiles[i]) i++;
      tiles[i](gemm, x, group * gemm->words, weights, acc, acc_stride);
      weights += (size_t)(8 >> i) * gemm->vector_words;
      acc += (8 >> i) * lanes;
      left -= 8 >> i;
    }
  }
}

enum { CHUNK = 64, MOST_PREPARED = 6 }; /* words that are prepared at once, for how many pixels */

/* The same, but the pixels' words are prepared first, `bytes` for each, for all output channels: words of all taps
 * then follow one another. A tile sets the sums of the first chunk and adds the others to them. */
typedef void (*prepared_tile)(const uint8_t *prepared, int words, const uint32_t *weights, size_t vector_words,
                              bool first, int32_t *acc, size_t acc_stride);

ALWAYS_INLINE void accumulate_prepared(const struct gemm *gemm, const int pixels, const uint32_t *const *x,
                                       int32_t *acc, size_t acc_stride, const int lanes, const int bytes,
                                       void (*prepare)(uint8_t *prepared, const uint32_t *x, int count),
                                       const prepared_tile *tiles) {
  uint8_t prepared[MOST_PREPARED * CHUNK * 16];
  const int words = gemm->words, total = gemm->taps * words;
  for (int group = 0; group < gemm->groups; group++)
    for (int begin = 0; begin < total; begin += CHUNK) {
      const int count = total - begin < CHUNK ? total - begin : CHUNK;
      for (int done = 0; done < count;) {
        const int tap = (begin + done) / words, word = (begin + done) % words;
        const int run = words - word < count - done ? words - word : count - done;
        for (int p = 0; p < pixels; p++)
          prepare(prepared + (p * CHUNK + done) * bytes, x[p] + gemm->tap_offsets[tap] + group * words + word, run);
        done += run;
      }
      const size_t stride = gemm->vector_words / (size_t)total; /* of a vector's weights, from word to word */
      for (int vector = 0; vector < gemm->vectors;) {
        int i = 0;
        while (gemm->vectors - vector < 8 >> i || !tiles[i]) i++;
        const size_t index = (size_t)group * (size_t)gemm->vectors + (size_t)vector;
        tiles[i](prepared, count, gemm->weights + index * gemm->vector_words + (size_t)begin * stride,
                 gemm->vector_words, begin == 0, acc + index * (size_t)lanes, acc_stride);
        vector += 8 >> i;
      }
    }
}
