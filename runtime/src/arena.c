#include "arena.h"

#include "buffers.h"

static bool is_placed(const struct buffer *b) { return !b->external && b->view_of < 0; }

/* The tasks of some steps, from the first to behind the last. */
static struct range tasks_of(const struct plan *plan, int first_step, int last_step) {
  struct range tasks = {plan->task_count, 0};
  for (int s = first_step; s <= last_step; s++) {
    if (is_nothing(&plan->steps[s])) continue;
    if (plan->steps[s].tasks.first < tasks.first) tasks.first = plan->steps[s].tasks.first;
    if (plan->steps[s].tasks.end > tasks.end) tasks.end = plan->steps[s].tasks.end;
  }
  return tasks;
}

/* The map in whose place a step can write a buffer: one of the same size that nothing reads later, each number of which
 * the step reads before it writes one there; -1 if there is none. */
static int read_in_place(const struct plan *plan, int buffer) {
  const struct buffer *b = &plan->buffers[buffer];
  const struct step *step = &plan->steps[b->first_step];
  int found = -1;
  bool written = false;
  if (b->bits || element_size(b) != 4 || b->ring < b->n * b->h || step->channels != b->pixel_words) return -1;
  for (int i = 0; i < step->count; i++) {
    const struct planned *op = &step->program[i];
    written = written || op->buffer == buffer;
    if (op->buffer < 0 || is_store(op->code)) continue;
    const struct buffer *read = &plan->buffers[op->buffer];
    if (written && op->buffer == found) return -1;
    if (!written && !op->period && is_placed(read) && read->last_step == b->first_step && element_size(read) == 4 &&
        read->pixel_words == b->pixel_words && read->ring == b->ring &&
        tasks_of(plan, read->first_step, b->first_step - 1).end <= step->tasks.first)
      found = op->buffer;
  }
  return written ? found : -1;
}

/* The end of a buffer among the first `count` that would lie in the place of buffer `b` while both live, or 0. */
static uint64_t in_the_way(const struct plan *plan, int count, const struct buffer *b, int read) {
  for (int i = 0; i < count; i++) {
    const struct buffer *other = &plan->buffers[i];
    if (!is_placed(other) || i == read) continue;
    const struct range lives = tasks_of(plan, b->first_step, b->last_step),
                       others = tasks_of(plan, other->first_step, other->last_step);
    const bool alive = b->bits || other->bits || (lives.first < others.end && others.first < lives.end);
    const uint64_t end = other->offset + buffer_bytes(other);
    if (alive && b->offset < end && other->offset < b->offset + buffer_bytes(b)) return end;
  }
  return 0;
}

/* In place of a map of the same size, else first fit by lifetime. Packed images keep their place for good, so that
 * their borders stay zero. */
uint64_t place_buffers(struct plan *plan) {
  uint64_t total = 0, end;
  for (int i = 0; i < plan->buffer_count; i++) {
    struct buffer *b = &plan->buffers[i];
    if (!is_placed(b)) continue;
    const int read = read_in_place(plan, i);
    if (read >= 0) b->offset = plan->buffers[read].offset;
    if (read < 0 || in_the_way(plan, i, b, read)) {
      b->offset = 0;
      while ((end = in_the_way(plan, i, b, -1))) b->offset = end;
    }
    end = b->offset + buffer_bytes(b);
    if (end > total) total = end;
  }
  return total;
}
