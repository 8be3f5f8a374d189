/* The frequent programs as straight-line code: the compiler knows their instructions, and a vector of channels goes
 * through all of them before the next one does. The operations are those of the other programs, so are the bits.
 */

/* Behind convolutions, in passes over tensors and in pools. Signs can only be the last instruction. */
#define ACC_STORE(DO) DO(0, OP_ACCUMULATED) DO(1, OP_STORE)
#define ACC_STORE_SIGNS(DO) ACC_STORE(DO) DO(2, OP_STORE_SIGNS)
#define ACC_PRELU_STORE(DO) DO(0, OP_ACCUMULATED) DO(1, OP_PRELU) DO(2, OP_STORE)
#define ACC_ADD_STORE(DO) DO(0, OP_ACCUMULATED) DO(1, OP_ADD_LOADED) DO(2, OP_STORE)
#define ACC_ADD_STORE_SIGNS(DO) ACC_ADD_STORE(DO) DO(3, OP_STORE_SIGNS)
#define CLAMPED_ADD_STORE_SIGNS(DO) DO(0, OP_CLAMPED) DO(1, OP_ADD_LOADED) DO(2, OP_STORE) DO(3, OP_STORE_SIGNS)
#define REACT(DO, SLOPE) DO(0, OP_ACCUMULATED) DO(1, OP_ADD_LOADED) DO(2, SLOPE) DO(3, OP_STORE)
#define REACT_PRELU(DO) REACT(DO, OP_PRELU)
#define REACT_PRELU_SIGNS(DO) REACT(DO, OP_PRELU) DO(4, OP_STORE_SIGNS)
#define REACT_FALL(DO) REACT(DO, OP_FALL)
#define REACT_FALL_SIGNS(DO) REACT(DO, OP_FALL) DO(4, OP_STORE_SIGNS)
#define REP(DO, SLOPE) \
  DO(0, OP_ACCUMULATED) DO(1, OP_MULTIPLY) DO(2, OP_ADD_LOADED) DO(3, OP_ADD) DO(4, SLOPE) DO(5, OP_STORE)
#define REP_PRELU(DO) REP(DO, OP_PRELU)
#define REP_PRELU_SIGNS(DO) REP(DO, OP_PRELU) DO(6, OP_STORE_SIGNS)
#define REP_FALL(DO) REP(DO, OP_FALL)
#define REP_FALL_SIGNS(DO) REP(DO, OP_FALL) DO(6, OP_STORE_SIGNS)
#define LOAD_SIGNS(DO) DO(0, OP_LOAD) DO(1, OP_STORE_SIGNS)
#define LOAD_STORE_SIGNS(DO) DO(0, OP_LOAD) DO(1, OP_STORE) DO(2, OP_STORE_SIGNS)
#define LOAD_SHIFT_STORE(DO) DO(0, OP_LOAD) DO(1, OP_ADD) DO(2, OP_STORE)
#define LOAD_ADD_STORE_SIGNS(DO) DO(0, OP_LOAD) DO(1, OP_ADD_LOADED) DO(2, OP_STORE) DO(3, OP_STORE_SIGNS)
#define MEAN_OF_4(DO) \
  DO(0, OP_LOAD) DO(1, OP_ADD_LOADED) DO(2, OP_ADD_LOADED) DO(3, OP_ADD_LOADED) DO(4, OP_MEAN) DO(5, OP_STORE)
#define MAX_OF_9(DO)   \
  DO(0, OP_LOAD)       \
  DO(1, OP_AT_LEAST)   \
  DO(2, OP_MAX_LOADED) \
  DO(3, OP_MAX_LOADED) \
  DO(4, OP_MAX_LOADED) \
  DO(5, OP_MAX_LOADED) \
  DO(6, OP_MAX_LOADED) DO(7, OP_MAX_LOADED) DO(8, OP_MAX_LOADED) DO(9, OP_MAX_LOADED) DO(10, OP_STORE)
/* clang-format off */
#define STRAIGHT_PROGRAMS(DO)                                                                            \
  DO(ACC_STORE) DO(ACC_STORE_SIGNS) DO(ACC_PRELU_STORE) DO(ACC_ADD_STORE) DO(ACC_ADD_STORE_SIGNS)        \
  DO(CLAMPED_ADD_STORE_SIGNS) DO(REACT_PRELU) DO(REACT_PRELU_SIGNS) DO(REACT_FALL) DO(REACT_FALL_SIGNS)  \
  DO(REP_PRELU) DO(REP_PRELU_SIGNS) DO(REP_FALL) DO(REP_FALL_SIGNS) DO(LOAD_SIGNS) DO(LOAD_STORE_SIGNS)  \
  DO(LOAD_SHIFT_STORE) DO(LOAD_ADD_STORE_SIGNS) DO(MEAN_OF_4) DO(MAX_OF_9)
/* clang-format on */

/* Where an instruction finds its data of the first pixel, and its constants. */
struct place {
  char *data;
  const float *constant, *scale;
  const float *const *border; /* of the first pixel */
  ptrdiff_t from;             /* the first channel, in `border` */
};

ALWAYS_INLINE bool loads(const enum opcode code) {
  return code == OP_LOAD || code == OP_ADD_LOADED || code == OP_MAX_LOADED;
}

ALWAYS_INLINE bool has_constant(const enum opcode code) {
  return !loads(code) && code != OP_MEAN && code != OP_AT_LEAST && code != OP_STORE;
}

/* For some channels of a unit, and pixels from `pixel` on. */
ALWAYS_INLINE struct place find_place(const enum opcode code, const struct instruction *op, int pixel, int unit,
                                      const int channel_of_unit) {
  const bool moves = is_result(code) || loads(code);
  const ptrdiff_t channel = (ptrdiff_t)unit * UNIT + channel_of_unit;
  /* Without a branch. */
  const int32_t none = 0, *table = moves && op->source_channels ? op->source_channels : &none;
  const ptrdiff_t mask = moves && op->source_channels ? -1 : 0;
  const ptrdiff_t from = moves ? table[unit & mask] + (channel & ~mask) + (channel_of_unit & mask) : channel;
  char *data = (char *)((uintptr_t)op->data + (uintptr_t)(pixel * op->stride));
  return (struct place){.data = data + (code == OP_STORE_SIGNS ? channel / 8 : from * 4),
                        .constant = has_constant(code) ? op->constant + (is_result(code) ? from : channel) : NULL,
                        .scale = is_result(code) ? op->scale + from : NULL,
                        .border = op->border ? op->border + pixel : NULL,
                        .from = from};
}

/* The constants of an instruction for a vector. */
struct constants {
  vfloat constant, scale;
};

ALWAYS_INLINE struct constants load_constants(const enum opcode code, const struct place *at, const int j) {
  struct constants c = {vset1(0.0f), vset1(0.0f)};
  if (is_result(code)) c.scale = vload(at->scale + j * FLOATS);
  if (has_constant(code)) c.constant = vload(at->constant + j * FLOATS);
  return c;
}

/* An instruction for vector j of a pixel, whose data begin at `data`. */
ALWAYS_INLINE vfloat run_vector(const enum opcode code, const struct instruction *op, vfloat v, char *data, const int j,
                                const struct constants *c, const float *border, vword *word) {
  float *floats = (float *)(void *)data + j * FLOATS;
  switch (code) {
    case OP_ACCUMULATED:
    case OP_CLAMPED:
      v = result(code, op, (const int32_t *)(const void *)floats, c->scale, c->constant);
      return border ? vadd(v, vload(border + j * FLOATS)) : v;
    case OP_LOAD:
    case OP_ADD_LOADED:
    case OP_MAX_LOADED:
      return compute(code, op, v, vload(floats));
    case OP_STORE:
      vstore(floats, v);
      return v;
    case OP_STORE_SIGNS:
      *word = vbelow(*word, j, v, c->constant);
      return v;
    default:
      return compute(code, op, v, c->constant);
  }
}

/* How many pixels can be handled together: of all or of none, there are addends of the image's border. */
ALWAYS_INLINE int alike(const float *const *border, int pixels) {
  int count = 1;
  while (count < pixels && (!border || !border[0] == !border[count])) count++;
  return count;
}

#define CODE_OF(i, code) code,
#define FIND_OP(i, code) struct place at##i = find_place(code, &op##i, pixel, unit, channel);
/* Copied to where the compiler knows that no store changes it. */
#define COPY_OP(i, code) const struct instruction op##i = program[i];
#define LOAD_OP(i, code) const struct constants c##i = load_constants(code, &at##i, j);

#ifdef VECTORS_AT_ONCE
/* The constants of some vectors stay in registers, while pixel after pixel is done. */
#define LOAD_ALL(i, code)                 \
  struct constants c##i[VECTORS_AT_ONCE]; \
  UNROLL for (int j = 0; j < VECTORS_AT_ONCE; j++) c##i[j] = load_constants(code, &at##i, j);
#define RUN_OP(i, code)                                    \
  v = run_vector(code, &op##i, v, at##i.data, j, &c##i[j], \
                 border && is_result(code) ? *at##i.border + at##i.from : NULL, &word);
#define NEXT_OP(i, code)                                     \
  if (code == OP_STORE_SIGNS) {                              \
    const uint32_t bits = vbits(word);                       \
    memcpy(at##i.data, &bits, VECTORS_AT_ONCE * FLOATS / 8); \
  }                                                          \
  if (loads(code) || code == OP_STORE) {                     \
    __builtin_prefetch(at##i.data + 128, code == OP_STORE);  \
    __builtin_prefetch(at##i.data + 192, code == OP_STORE);  \
  }                                                          \
  at##i.data += op##i.stride;                                \
  if (border && is_result(code)) at##i.border++;
#define DEFINE_PIXELS(NAME)                                                                               \
  ALWAYS_INLINE void NAME##_pixels(const struct instruction *program, int channels, int pixel, int count, \
                                   const bool border) {                                                   \
    NAME(COPY_OP)                                                                                         \
    for (int unit = 0; unit < channels / UNIT; unit++)                                                    \
      UNROLL for (int channel = 0; channel < UNIT; channel += VECTORS_AT_ONCE * FLOATS) {                 \
        NAME(FIND_OP)                                                                                     \
        NAME(LOAD_ALL)                                                                                    \
        for (int p = 0; p < count; p++) {                                                                 \
          vword word = {0};                                                                               \
          UNROLL for (int j = 0; j < VECTORS_AT_ONCE; j++) {                                              \
            vfloat v = vset1(0.0f);                                                                       \
            NAME(RUN_OP)                                                                                  \
          }                                                                                               \
          NAME(NEXT_OP)                                                                                   \
        }                                                                                                 \
      }                                                                                                   \
  }
#else
/* There are too few registers for that: a constant serves some pixels at once. */
#define HIDE_OP(i, code)                                                            \
  vhide(at##i.constant);                                                            \
  vhide(at##i.scale);                                                               \
  char *data##i[PIXELS_AT_ONCE];                                                    \
  const float *border##i[PIXELS_AT_ONCE];                                           \
  UNROLL for (int p = 0; p < P; p++) {                                              \
    data##i[p] = at##i.data + p * op##i.stride;                                     \
    vhide(data##i[p]);                                                              \
    border##i[p] = border && is_result(code) ? at##i.border[p] + at##i.from : NULL; \
  }
#define RUN_OP(i, code)                     \
  UNROLL for (int p = 0; p < P; p++) v[p] = \
      run_vector(code, &op##i, v[p], data##i[p], j, &c##i, border##i[p], &words[p]);
#define END_OP(i, code)                                          \
  UNROLL for (int p = 0; p < P && code == OP_STORE_SIGNS; p++) { \
    const uint32_t word = vbits(words[p]);                       \
    memcpy(data##i[p], &word, 4);                                \
  }
#define DEFINE_BLOCK(NAME)                                                                                 \
  ALWAYS_INLINE void NAME##_block(const struct instruction *program, int channels, int pixel, const int P, \
                                  const bool border) {                                                     \
    NAME(COPY_OP)                                                                                          \
    for (int unit = 0; unit < channels / UNIT; unit++) {                                                   \
      enum { channel = 0 };                                                                                \
      vword words[PIXELS_AT_ONCE];                                                                         \
      UNROLL for (int p = 0; p < P; p++) words[p] = (vword){0};                                            \
      NAME(FIND_OP)                                                                                        \
      NAME(HIDE_OP)                                                                                        \
      UNROLL for (int j = 0; j < VECTORS; j++) {                                                           \
        vfloat v[PIXELS_AT_ONCE];                                                                          \
        UNROLL for (int p = 0; p < P; p++) v[p] = vset1(0.0f);                                             \
        NAME(LOAD_OP)                                                                                      \
        NAME(RUN_OP)                                                                                       \
      }                                                                                                    \
      NAME(END_OP)                                                                                         \
    }                                                                                                      \
  }
#define DEFINE_PIXELS(NAME)                                                                               \
  DEFINE_BLOCK(NAME)                                                                                      \
  ALWAYS_INLINE void NAME##_pixels(const struct instruction *program, int channels, int pixel, int count, \
                                   const bool border) {                                                   \
    for (; count >= PIXELS_AT_ONCE; count -= PIXELS_AT_ONCE, pixel += PIXELS_AT_ONCE)                     \
      NAME##_block(program, channels, pixel, PIXELS_AT_ONCE, border);                                     \
    for (; count >= 2; count -= 2, pixel += 2) NAME##_block(program, channels, pixel, 2, border);         \
    if (count) NAME##_block(program, channels, pixel, 1, border);                                         \
  }
#endif

/* The last, incomplete unit. */
static __attribute__((noinline)) void run_rest(const struct instruction *program, int count, int channels, int pixels) {
  for (int pixel = 0; pixel < pixels; pixel++) run_units(program, count, pixel, channels / UNIT, 1, 1, channels % UNIT);
}

#define DEFINE_PROGRAM(NAME)                                                                                \
  DEFINE_PIXELS(NAME)                                                                                       \
  static void NAME##_run(const struct instruction *program, int count, int channels, int pixels) {          \
    static const enum opcode codes[] = {NAME(CODE_OF)};                                                     \
    for (int pixel = 0, many; pixel < pixels; pixel += many) {                                              \
      const float *const *border = is_result(codes[0]) && program->border ? program->border + pixel : NULL; \
      many = border ? alike(border, pixels - pixel) : pixels;                                               \
      if (border && *border)                                                                                \
        NAME##_pixels(program, channels, pixel, many, true);                                                \
      else                                                                                                  \
        NAME##_pixels(program, channels, pixel, many, false);                                               \
    }                                                                                                       \
    if (channels % UNIT) run_rest(program, count, channels, pixels);                                        \
  }
STRAIGHT_PROGRAMS(DEFINE_PROGRAM)

#define COUNT_OP(i, code) +1
#define LIST_PROGRAM(NAME) {.count = NAME(COUNT_OP), .codes = {NAME(CODE_OF)}, .run = NAME##_run},
static const struct straight straight_programs[] = {STRAIGHT_PROGRAMS(LIST_PROGRAM){.count = 0}};
