/* Vectors of one unit in plain C, for instruction sets whose compiler generates the vector instructions. */
#include "kernels.h"

#define FLOATS 32
#define BLOCKS_AT_ONCE 1
typedef struct {
  float f[FLOATS];
} vfloat;

#define ELEMENTWISE(name, expression)                     \
  static inline vfloat name(vfloat a, vfloat b) {         \
    vfloat r;                                             \
    for (int i = 0; i < FLOATS; i++) r.f[i] = expression; \
    return r;                                             \
  }
ELEMENTWISE(vadd, a.f[i] + b.f[i])
ELEMENTWISE(vsub, a.f[i] - b.f[i])
ELEMENTWISE(vmul, a.f[i] * b.f[i])
ELEMENTWISE(vmin, a.f[i] < b.f[i] ? a.f[i] : b.f[i])
ELEMENTWISE(vmax, a.f[i] > b.f[i] ? a.f[i] : b.f[i])
ELEMENTWISE(vprelu, a.f[i] < 0 ? a.f[i] * b.f[i] : a.f[i])
#undef ELEMENTWISE

static inline vfloat vload(const float *p) {
  vfloat r;
  for (int i = 0; i < FLOATS; i++) r.f[i] = p[i];
  return r;
}

static inline void vstore(float *p, vfloat v) {
  for (int i = 0; i < FLOATS; i++) p[i] = v.f[i];
}

static inline vfloat vset1(float x) {
  vfloat r;
  for (int i = 0; i < FLOATS; i++) r.f[i] = x;
  return r;
}

static inline vfloat vconvert(const int32_t *p) {
  vfloat r;
  for (int i = 0; i < FLOATS; i++) r.f[i] = (float)(p[i] - SUM_ZERO);
  return r;
}

static inline void vload_int8(vfloat *v, const char *p) {
  for (int i = 0; i < FLOATS; i++) v->f[i] = (int8_t)p[i];
}

static inline void vstore_int8(char *p, const vfloat *v) {
  for (int i = 0; i < FLOATS; i++) p[i] = (char)(int8_t)(int32_t)v->f[i];
}

static inline vfloat vfall(vfloat v, vfloat slope) { return vmax(vmul(v, slope), v); }

typedef uint32_t vword;
static inline vword vbelow(vword word, int i, vfloat v, vfloat threshold) {
  (void)i; /* a unit is one vector */
  for (int c = 0; c < FLOATS; c++) word |= (uint32_t)(v.f[c] < threshold.f[c]) << c;
  return word;
}
#define vbits(word) (word)
