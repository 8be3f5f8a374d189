/* Random programs in straight-line code against the general way and against plain C, in all implementations; and random
 * steps before and after they are simplified. Numbers are of all kinds, and channels, pixels, strides and borders too.
 *   programs [cases] [seed]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/delegate.h"
#include "../src/denormals.h"
#include "../src/simplify.h"

enum { MOST_PIXELS = 13, MOST_CHANNELS = 200, ROOM = 320 /* of a pixel */, OPS = 12 };

static uint64_t state;

static int below(int n) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (int)((state >> 33) % (uint64_t)n);
}

static float number(void) {
  static const float special[] = {0, -0.0f, INFINITY, -INFINITY, NAN, 1e-40f, -1e-40f, 1.1754944e-38f, 3e38f, -3e38f};
  return below(8) ? (float)(below(2001) - 1000) / 256.0f : special[below(10)];
}

/* In (0, 1]. */
static float fraction(void) { return (float)(below(256) + 1) / 256.0f; }

static void fail(const char *what, const char *kernels, int index) {
  fprintf(stderr, "programs: %s differs (%s, %d).\n", what, kernels, index);
  exit(1);
}

/* NaNs are equal: which of two operands' bits one has is the compiler's choice. */
static bool same(const float *a, const float *b, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (memcmp(&a[i], &b[i], sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i]))) return false;
  return true;
}

struct memory {
  float floats[OPS + 1][MOST_PIXELS * ROOM]; /* of each instruction, and what is stored */
  uint32_t words[MOST_PIXELS * ROOM / UNIT];
};

static struct memory input, found, expected;
static float constants[OPS][2][ROOM], border_values[ROOM];
static int32_t tables[OPS][ROOM / UNIT];

static void run_program(run_function run, struct instruction *program, int count, int channels, int pixels,
                        struct memory *memory) {
  *memory = input;
  for (int i = 0; i < count; i++)
    if (program[i].stride)
      program[i].data = program[i].code == OP_STORE_SIGNS
                            ? (char *)memory->words
                            : (char *)memory->floats[program[i].code == OP_STORE ? OPS : i];
  run(program, count, channels, pixels);
}

static void compare(const char *what, const char *kernels, int index) {
  if (!same(found.floats[0], expected.floats[0], sizeof found.floats / sizeof(float))) fail(what, kernels, index);
  if (memcmp(found.words, expected.words, sizeof found.words) != 0) fail(what, kernels, index);
}

/* Gives an instruction constants and data. */
static struct instruction operand(enum opcode code, int i, int channels, const float *const *border) {
  const bool memory =
      code == OP_LOAD || code == OP_ADD_LOADED || code == OP_MAX_LOADED || code == OP_STORE || is_result(code);
  struct instruction op = {
      .code = code, .low = 0.25f, .high = 300, .constant = constants[i][0], .scale = constants[i][1]};
  for (int c = 0; c < ROOM; c++) {
    constants[i][0][c] = code == OP_FALL ? fraction() : number();
    constants[i][1][c] = number();
  }
  if (memory) op.stride = 4 * (below(2) ? ROOM : (channels + UNIT - 1) / UNIT * UNIT);
  if (code == OP_STORE_SIGNS) op.stride = ROOM / 8;
  if (is_result(code)) op.border = border;
  if (memory && code != OP_STORE && code != OP_MAX_LOADED && below(2)) {
    for (int u = 0; u < ROOM / UNIT; u++) tables[i][u] = below(channels);
    op.stride = 4 * ROOM; /* a unit from any channel on lies inside */
    op.source_channels = tables[i];
    if (code == OP_LOAD) op.code = OP_LOAD_REPEATED;
    if (code == OP_ADD_LOADED) op.code = OP_ADD_LOADED_REPEATED;
  }
  return op;
}

static void test_straight(const struct kernels *kernels) {
  for (int s = 0; kernels->straight[s].count; s++) {
    const struct straight *straight = &kernels->straight[s];
    const int channels = 1 + below(MOST_CHANNELS), pixels = 1 + below(MOST_PIXELS);
    const float *borders[MOST_PIXELS];
    for (int p = 0; p < pixels; p++) borders[p] = below(3) ? NULL : border_values;
    struct instruction program[OPS];
    for (int i = 0; i < straight->count; i++)
      program[i] = operand(straight->codes[i], i, channels, below(2) ? borders : NULL);
    for (int i = 0; i < ROOM; i++) border_values[i] = number();
    for (int i = 0; i < OPS; i++)
      for (int j = 0; j < MOST_PIXELS * ROOM; j++) {
        input.floats[i][j] = number();
        const int32_t sum = SUM_ZERO + below(1 << 23);
        if (i == 0 && is_result(straight->codes[0])) memcpy(&input.floats[i][j], &sum, sizeof sum);
      }
    if (find_run(kernels, program, straight->count) != straight->run) fail("the function", kernels->name, s);
    run_program(straight->run, program, straight->count, channels, pixels, &found);
    run_program(kernels->run, program, straight->count, channels, pixels, &expected);
    compare("straight-line code", kernels->name, s);
    run_program(kernels_portable.run, program, straight->count, channels, pixels, &expected);
    compare("plain C", kernels->name, s);
  }
}

/* A step of random operations that ends with signs, and perhaps a float of the same value. */
static void test_simplified(void) {
  const int channels = 1 + below(40), operations = below(5);
  struct step step = {.channels = channels};
  struct plan plan = {.steps = &step, .step_count = 1};
  static const enum opcode codes[] = {OP_ADD, OP_SUBTRACT, OP_MULTIPLY, OP_PRELU, OP_SUBTRACT_FROM};
  step.program[step.count++] = (struct planned){.code = OP_LOAD, .buffer = 0};
  for (int i = 0; i < operations; i++) {
    float *constant = calloc(ROOM, sizeof *constant);
    const bool positive = below(2);
    for (int c = 0; c < channels; c++) constant[c] = positive ? fraction() : number();
    step.program[step.count++] = (struct planned){.code = codes[below(5)], .buffer = -1, .constant = constant};
  }
  const int before = step.count;
  float saved[OPS][ROOM] = {{0}};
  enum opcode original[OPS];
  for (int i = 0; i < before; i++) {
    original[i] = step.program[i].code;
    if (step.program[i].constant) memcpy(saved[i], step.program[i].constant, sizeof saved[i]);
  }
  const bool stores = below(2);
  step.program[step.count++] = (struct planned){.code = OP_STORE_SIGNS, .buffer = 1};
  if (stores) step.program[step.count++] = (struct planned){.code = OP_STORE, .buffer = 2};
  if (!simplify_programs(&plan)) fail("memory", "plain C", 0);

  for (int j = 0; j < MOST_PIXELS * ROOM; j++) input.floats[0][j] = number();
  /* The thresholds and their neighbours: where a sign changes. */
  const float *thresholds = step.program[step.count - 1].constant;
  for (int p = 0; p < 3; p++)
    for (int c = 0; c < channels; c++)
      input.floats[0][p * ROOM + c] = p == 0 ? thresholds[c] : nextafterf(thresholds[c], p == 1 ? -INFINITY : INFINITY);
  struct instruction program[OPS + 2], reference[OPS + 2];
  for (int i = 0; i < step.count; i++)
    program[i] = (struct instruction){.code = step.program[i].code, .constant = step.program[i].constant};
  program[0].stride = 4 * ROOM;
  program[step.count - 1].stride = ROOM / 8;
  if (stores) program[step.count - 2].stride = 4 * ROOM;
  int count = 0;
  for (int i = 0; i < before; i++) reference[count++] = (struct instruction){.code = original[i], .constant = saved[i]};
  if (stores) reference[count++] = (struct instruction){.code = OP_STORE, .stride = 4 * ROOM};
  static const float zeros[ROOM];
  reference[count++] = (struct instruction){.code = OP_STORE_SIGNS, .constant = zeros, .stride = ROOM / 8};
  reference[0].stride = 4 * ROOM;
  for (const struct kernels *const *k = all_kernels; *k; k++) {
    if (!(*k)->supported() || !(*k)->run) continue; /* it uses another's programs */
    run_program((*k)->run, program, step.count, channels, MOST_PIXELS, &found);
    run_program(kernels_portable.run, reference, count, channels, MOST_PIXELS, &expected);
    compare("a simplified step", (*k)->name, before);
  }
  for (int i = 0; i < step.count; i++) free(step.program[i].constant);
}

int main(int argc, char **argv) {
  const int cases = argc > 1 ? atoi(argv[1]) : 100;
  state = argc > 2 ? (uint64_t)atoi(argv[2]) : 1;
  char names[64];
  list_kernels(names, sizeof names);
  flush_denormals();
  for (int i = 0; i < cases; i++) {
    for (const struct kernels *const *k = all_kernels; *k; k++)
      if ((*k)->supported() && (*k)->run) test_straight(*k);
    for (int j = 0; j < 10; j++) test_simplified();
  }
  printf("%d cases of %s: passed\n", cases, names);
  return 0;
}
