/* - Signs of a value behind additions and multiplications by positive numbers: rounding keeps the order of floats, so
 *   the value is negative where its origin lies below a threshold, which bisection over the floats finds.
 * - Slopes above 0 and up to 1: PRELU is a maximum.
 */
#include "simplify.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "denormals.h"
#include "memory.h"

/* Floats from -inf to inf as neighbouring integers. */
static float float_of(int32_t key) {
  const uint32_t bits = key < 0 ? 0x80000000u | (uint32_t)-key : (uint32_t)key;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static bool is_negative(const struct planned *ops, int count, int channel, float x) {
  for (int i = 0; i < count; i++) {
    const float c = ops[i].constant[channel];
    x = ops[i].code == OP_ADD ? x + c : ops[i].code == OP_SUBTRACT ? x - c : x * c;
  }
  return x < 0;
}

/* The number that all x with a negative result are below. */
static float threshold(const struct planned *ops, int count, int channel) {
  int32_t low = -0x7f800000, high = 0x7f800000;
  while (low < high) {
    const int32_t middle = low + (int32_t)(((int64_t)high - low) / 2);
    if (is_negative(ops, count, channel, float_of(middle)))
      low = middle + 1;
    else
      high = middle;
  }
  return float_of(low);
}

/* Whether all constants are in (0, most]; denormal ones count as 0. */
static bool all_positive(const struct planned *op, int channels, float most) {
  for (int c = 0; c < channels; c++)
    if (!(op->constant[c] >= FLT_MIN && op->constant[c] <= most)) return false;
  return true;
}

static bool keeps_order(const struct planned *op, int channels) {
  return op->code == OP_ADD || op->code == OP_SUBTRACT ||
         (op->code == OP_MULTIPLY && all_positive(op, channels, FLT_MAX));
}

static bool set_thresholds(struct step *step) {
  struct planned *signs = &step->program[step->count - 1];
  for (int i = 0; i < step->count; i++) {
    struct planned *op = &step->program[i];
    if (op->code != OP_STORE_SIGNS) continue;
    op->constant = allocate((size_t)round_up(step->channels, UNIT), sizeof *op->constant);
    if (!op->constant) return false;
  }
  if (signs->code != OP_STORE_SIGNS) return true;
  int first = step->count - 1;
  while (first > 0 && keeps_order(&step->program[first - 1], step->channels)) first--;
  const int count = step->count - 1 - first;
  if (!count) return true;
  for (int c = 0; c < step->channels; c++) signs->constant[c] = threshold(&step->program[first], count, c);
  for (int i = first; i < first + count; i++) free(step->program[i].constant);
  step->program[first] = *signs;
  step->count = first + 1;
  return true;
}

static void swap_stores(struct step *step) {
  for (int i = 0; i + 1 < step->count; i++) {
    struct planned *op = &step->program[i];
    if (op[0].code != OP_STORE_SIGNS || !is_store(op[1].code)) continue;
    const struct planned signs = op[0];
    op[0] = op[1];
    op[1] = signs;
  }
}

/* Whether an instruction never leaves a denormal number: a maximum could not tell it from 0. */
static bool never_subnormal(enum opcode code) {
  return is_result(code) || code == OP_ADD || code == OP_SUBTRACT || code == OP_ADD_LOADED ||
         code == OP_ADD_LOADED_REPEATED;
}

static bool simplify(struct step *step) {
  swap_stores(step);
  if (!set_thresholds(step)) return false;
  for (int i = 1; i < step->count; i++) {
    struct planned *op = &step->program[i];
    if (op->code == OP_PRELU && never_subnormal(step->program[i - 1].code) && all_positive(op, step->channels, 1))
      op->code = OP_FALL;
  }
  return true;
}

bool simplify_programs(struct plan *plan) {
  const unsigned long long saved = flush_denormals(); /* as when the programs run */
  bool memory = true;
  for (int s = 0; s < plan->step_count && memory; s++) memory = !plan->steps[s].count || simplify(&plan->steps[s]);
  restore_denormals(saved);
  return memory;
}
