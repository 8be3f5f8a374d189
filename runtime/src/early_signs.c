#include "early_signs.h"

#include <stdlib.h>
#include <string.h>

#include "memory.h"

/* Channels of a buffer that is no slice of another. */
struct region {
  int buffer;
  struct range channels;
};

static struct region region_of(const struct plan *plan, int buffer, int offset, int channels) {
  for (; plan->buffers[buffer].view_of >= 0; buffer = plan->buffers[buffer].view_of)
    offset += plan->buffers[buffer].view_channel;
  return (struct region){buffer, {offset, offset + channels}};
}

static struct region region_of_op(const struct plan *plan, const struct step *step, int op) {
  return region_of(plan, step->program[op].buffer, step->program[op].offset, step->channels);
}

static bool meet(struct region a, struct region b) {
  return a.buffer == b.buffer && a.channels.first < b.channels.end && b.channels.first < a.channels.end;
}

/* Whether the part can have its own words in the packed whole. */
static bool fits(struct region part, struct region whole) {
  return part.channels.first >= whole.channels.first && part.channels.end <= whole.channels.end &&
         (part.channels.first - whole.channels.first) % UNIT == 0 &&
         (part.channels.end == whole.channels.end || length(part.channels) % UNIT == 0);
}

static bool only_signs(const struct step *step) {
  return step->kind == STEP_ELEMENTWISE && step->count == 2 && step->program[0].code == OP_LOAD &&
         step->program[1].code == OP_STORE_SIGNS;
}

/* The signs of a part of what the step `from` signs; without a constant if there is no memory. */
static struct planned part_of_signs(const struct step *from, int first, int channels) {
  struct planned signs = from->program[1];
  signs.offset += first;
  signs.constant = allocate((size_t)round_up(channels, UNIT), sizeof *signs.constant);
  if (signs.constant) memcpy(signs.constant, from->program[1].constant + first, (size_t)channels * sizeof(float));
  return signs;
}

/* Lets the step sign its number of instruction `source`, which stores or loads it. */
static bool add_signs(struct step *step, int source, struct planned signs) {
  if (!signs.constant) return false;
  if (source != step->count - 1 || step->program[source].code != OP_STORE) {
    step->program[step->count] = step->program[source];
    step->program[step->count++].code = OP_LOAD;
  }
  step->program[step->count++] = signs;
  return true;
}

static bool move_signs(struct plan *plan, struct step *step) {
  const struct region whole = region_of_op(plan, step, 0);
  struct region rest = {-1, {0, 0}}; /* what a step without a program writes */
  int written = 0;
  for (int s = 0; s < plan->step_count; s++) {
    const struct step *writer = &plan->steps[s];
    if (writer->target >= 0) {
      const struct region part = region_of(plan, writer->target, 0, writer->channels);
      if (!meet(part, whole)) continue;
      if (rest.buffer >= 0 || !fits(part, whole)) return true;
      rest = part;
    }
    for (int i = 0; i < writer->count; i++) {
      if (writer->program[i].code != OP_STORE || !meet(region_of_op(plan, writer, i), whole)) continue;
      if (!fits(region_of_op(plan, writer, i), whole) || writer->count + 2 > MAX_INSTRUCTIONS) return true;
      written += writer->channels;
    }
  }
  if (!written || written + length(rest.channels) != step->channels) return true;
  for (int s = 0; s < plan->step_count; s++) {
    struct step *writer = &plan->steps[s];
    for (int i = 0, count = writer->count; i < count; i++) {
      if (writer->program[i].code != OP_STORE) continue;
      const struct region part = region_of_op(plan, writer, i);
      if (!meet(part, whole)) continue;
      if (!add_signs(writer, i, part_of_signs(step, part.channels.first - whole.channels.first, writer->channels)))
        return false;
    }
  }
  struct planned *load = &step->program[0], *signs = &step->program[1];
  float *constant = signs->constant;
  if (rest.buffer >= 0) {
    const int first = rest.channels.first - whole.channels.first;
    *signs = part_of_signs(step, first, length(rest.channels));
    load->offset += first;
    step->channels = length(rest.channels);
  } else {
    step->count = 1; /* nothing is left to do */
  }
  free(constant);
  return rest.buffer < 0 || signs->constant;
}

/* Lets the first step that signs a region also do what later ones do with it. */
static void join_signs(struct plan *plan, struct step *step) {
  for (struct step *later = step + 1; later < plan->steps + plan->step_count; later++) {
    if (!only_signs(later) || step->count + 2 > MAX_INSTRUCTIONS) continue;
    const struct region a = region_of_op(plan, step, 0), b = region_of_op(plan, later, 0);
    if (a.buffer != b.buffer || !same_range(a.channels, b.channels)) continue;
    add_signs(step, 0, later->program[1]);
    later->count = 1;
  }
}

bool take_signs_early(struct plan *plan) {
  for (int s = 0; s < plan->step_count; s++)
    if (only_signs(&plan->steps[s]) && !move_signs(plan, &plan->steps[s])) return false;
  for (int s = 0; s < plan->step_count; s++)
    if (only_signs(&plan->steps[s])) join_signs(plan, &plan->steps[s]);
  return true;
}
