#include "arena.h"

#include "buffers.h"

/* Buffers that live at one of the steps `from` to `to` live at all of them. */
static void widen_lifetimes(struct plan *plan, int from, int to) {
  for (int i = 0; i < plan->buffer_count; i++) {
    struct buffer *b = &plan->buffers[i];
    if (b->first_step > to || b->last_step < from) continue;
    if (b->first_step > from) b->first_step = from;
    if (b->last_step < to) b->last_step = to;
  }
}

/* First fit by lifetime. Packed images keep their place for good, so that their borders stay zero. */
uint64_t place_buffers(struct plan *plan) {
  /* Lifetimes are counted in steps; buffers of steps that take turns live together. */
  for (int i = 0; i + 1 < plan->task_count; i++)
    if (plan->tasks[i + 1].step < plan->tasks[i].step)
      widen_lifetimes(plan, plan->tasks[i + 1].step, plan->tasks[i].step);
  uint64_t total = 0;
  for (int i = 0; i < plan->buffer_count; i++) {
    struct buffer *b = &plan->buffers[i];
    if (b->external || b->view_of >= 0) continue;
    const uint64_t bytes = buffer_bytes(b);
    b->offset = 0;
    for (bool moved = true; moved;) {
      moved = false;
      for (int j = 0; j < i; j++) {
        const struct buffer *other = &plan->buffers[j];
        if (other->external || other->view_of >= 0) continue;
        const bool alive =
            b->bits || other->bits || (b->first_step <= other->last_step && other->first_step <= b->last_step);
        const uint64_t end = other->offset + buffer_bytes(other);
        if (alive && b->offset < end && other->offset < b->offset + bytes) {
          b->offset = end;
          moved = true;
        }
      }
    }
    if (b->offset + bytes > total) total = b->offset + bytes;
  }
  return total;
}
