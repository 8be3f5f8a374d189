#include "early.h"

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

/* Whether the step computes one result from one map, number by number. Other memory than that of signs, or of the
 * partition's outputs, would be needed for longer. */
static bool can_move(const struct plan *plan, const struct step *step) {
  if (step->kind != STEP_ELEMENTWISE || step->count < 2 || step->program[0].code != OP_LOAD) return false;
  for (int i = 1; i < step->count; i++) {
    const struct planned *op = &step->program[i];
    if ((i < step->count - 1) == (op->buffer >= 0) || op->source_channels) return false;
    if (op->buffer >= 0 && !is_packed(op->code) && !plan->buffers[op->buffer].external) return false;
  }
  return is_store(step->program[step->count - 1].code);
}

/* An instruction for some of its step's channels. False if there is no memory. */
static bool part_of_op(struct planned *op, const struct planned *whole, int first, int channels) {
  *op = *whole;
  if (op->buffer >= 0) op->offset += first;
  if (!whole->constant) return true;
  op->constant = allocate((size_t)round_up(channels, UNIT), sizeof *op->constant);
  if (op->constant) memcpy(op->constant, whole->constant + first, (size_t)channels * sizeof(float));
  return op->constant;
}

/* Lets the step do with its number of instruction `source`, which stores or loads it, what the program does from its
 * channel `first` on. */
static bool add_program(struct step *step, int source, const struct step *from, int first) {
  int i = 1;
  if (source != step->count - 1 || step->program[source].code != OP_STORE) {
    step->program[step->count] = step->program[source];
    step->program[step->count++].code = OP_LOAD;
  }
  while (i < from->count && part_of_op(&step->program[step->count], &from->program[i], first, step->channels)) {
    step->count++;
    i++;
  }
  return i == from->count;
}

/* Moves a step's program to those that store what it loads; not if the whole is written otherwise, or if a program has
 * no room for it. False if there is no memory. */
static bool move_program(struct plan *plan, struct step *step) {
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
    for (int i = 0, count = writer->count; i < writer->count; i++) {
      if (writer->program[i].code != OP_STORE || !meet(region_of_op(plan, writer, i), whole)) continue;
      count += step->count;
      if (!fits(region_of_op(plan, writer, i), whole) || count > MAX_INSTRUCTIONS) return true;
      written += writer->channels;
    }
  }
  if (!written || written + length(rest.channels) != step->channels) return true;
  for (int s = 0; s < plan->step_count; s++) {
    struct step *writer = &plan->steps[s];
    for (int i = 0, count = writer->count; i < count; i++) {
      if (writer->program[i].code != OP_STORE) continue;
      const struct region part = region_of_op(plan, writer, i);
      if (meet(part, whole) && !add_program(writer, i, step, part.channels.first - whole.channels.first)) return false;
    }
  }
  const struct step all = *step;
  step->count = 1; /* a view does all its work */
  bool memory = true;
  if (rest.buffer >= 0) {
    step->count = 0;
    const int first = rest.channels.first - whole.channels.first;
    step->channels = length(rest.channels);
    step->program[0].offset += first;
    memory = add_program(step, 0, &all, first);
  }
  for (int i = 1; i < all.count; i++) free(all.program[i].constant);
  return memory;
}

/* Lets the first step that passes over a region also do what later ones do with it. */
static void join_programs(struct plan *plan, struct step *step) {
  for (struct step *later = step + 1; later < plan->steps + plan->step_count; later++) {
    if (!can_move(plan, later) || step->count + later->count > MAX_INSTRUCTIONS) continue;
    const struct region a = region_of_op(plan, step, 0), b = region_of_op(plan, later, 0);
    if (a.buffer != b.buffer || !same_range(a.channels, b.channels)) continue;
    memcpy(&step->program[step->count], later->program, (size_t)later->count * sizeof *later->program);
    step->program[step->count] = step->program[0]; /* without waiting for other channels of a later whole */
    step->count += later->count;
    later->count = 1;
  }
}

bool compute_early(struct plan *plan) {
  for (int s = 0; s < plan->step_count; s++)
    if (can_move(plan, &plan->steps[s]) && !move_program(plan, &plan->steps[s])) return false;
  for (int s = 0; s < plan->step_count; s++)
    if (can_move(plan, &plan->steps[s])) join_programs(plan, &plan->steps[s]);
  return true;
}
