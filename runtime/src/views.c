#include "views.h"

#include <string.h>

void make_views(struct plan *plan) {
  for (int s = 0; s < plan->step_count; s++) {
    struct step *step = &plan->steps[s];
    if (step->kind != STEP_ELEMENTWISE || step->count < 2 || step->program[0].code != OP_LOAD ||
        step->program[1].code != OP_STORE)
      continue;
    struct buffer *part = &plan->buffers[step->program[0].buffer];
    struct buffer *whole = &plan->buffers[step->program[1].buffer];
    if (part->external || part->view_of >= 0) continue;
    part->view_of = step->program[1].buffer;
    part->view_channel = step->program[1].offset;
    if (part->first_step < whole->first_step) whole->first_step = part->first_step;
    if (part->last_step > whole->last_step) whole->last_step = part->last_step;
    memmove(&step->program[1], &step->program[2], (size_t)(step->count - 2) * sizeof *step->program);
    step->count--;
  }
  /* A view of a view lives as long as the buffer that contains both. */
  for (int i = 0; i < plan->buffer_count; i++)
    for (int j = i; plan->buffers[j].view_of >= 0; j = plan->buffers[j].view_of) {
      struct buffer *whole = &plan->buffers[plan->buffers[j].view_of];
      if (plan->buffers[i].first_step < whole->first_step) whole->first_step = plan->buffers[i].first_step;
      if (plan->buffers[i].last_step > whole->last_step) whole->last_step = plan->buffers[i].last_step;
    }
}
