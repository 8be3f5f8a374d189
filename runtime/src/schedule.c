/* The order of the work: steps with large results take turns, some rows each, so that a row is still in the cache
 * when the next step reads it.
 */
#include <stdlib.h>

#include "delegate.h"

/* Bytes of results that are split into turns, and of a turn. The sanitizers' builds have small ones. */
#ifndef TURN_BYTES
#define SPLIT_BYTES (1 << 20)
#define TURN_BYTES (48 << 10)
#endif

bool is_store(enum opcode code) {
  return code == OP_STORE || code == OP_STORE_INT8 || code == OP_STORE_SIGNS;
}

void output_images(const struct plan *plan, const struct step *step, int *n, int *h, int *w) {
  const struct buffer *source = &plan->buffers[step->source];
  *n = source->n;
  *h = source->h;
  *w = source->w;
  if (step->kind == STEP_CONVOLUTION) {
    *h = step->convolution->rows.out;
    *w = step->convolution->columns.out;
  } else if (step->target >= 0) {
    *n = plan->buffers[step->target].n;
    *h = plan->buffers[step->target].h;
    *w = plan->buffers[step->target].w;
  }
}

struct progress {
  int rows, done, band;
};

/* Rows of its window's source that a step has to have for its output up to `row`. */
static int needed(const struct plan *plan, const struct step *step, int h, int row) {
  const struct buffer *source = &plan->buffers[step->source];
  const struct window *w = &step->window;
  int out, before, last;
  if (step->kind == STEP_BROADCAST) return source->n * source->h;
  if (step->kind == STEP_CONVOLUTION) {
    const struct convolution *conv = step->convolution;
    /* The copy with a border is made before the first of the tasks, of all rows. */
    if (conv->padded) return source->n * source->h;
    last = row % h * conv->window.stride_height + conv->rows.start +
           (conv->rows.taps.end - conv->rows.taps.first - 1) * conv->window.dilation_height;
  } else if (step->kind == STEP_BINARY_MAX_POOL || step->kind == STEP_POOL) {
    output_size(source->h, w->height, w->stride_height, 1, w->same, &out, &before);
    last = row % h * w->stride_height - before + w->height - 1;
  } else {
    return row + 1;
  }
  return row / h * source->h + (last < source->h ? last + 1 : source->h);
}

bool writes(const struct step *step, int buffer) {
  if (step->target == buffer) return true;
  for (int i = 0; i < step->count; i++)
    if (is_store(step->program[i].code) && step->program[i].buffer == buffer) return true;
  return false;
}

/* Rows of a buffer that are complete: those that all steps writing to it, or to a part made in it, have done. */
static int complete(const struct plan *plan, const struct progress *progress, int buffer) {
  int rows = INT32_MAX;
  for (int b = 0; b < plan->buffer_count; b++) {
    int root = b;
    while (root != buffer && plan->buffers[root].view_of >= 0) root = plan->buffers[root].view_of;
    if (root != buffer) continue;
    for (int s = 0; s < plan->step_count; s++)
      if (writes(&plan->steps[s], b) && progress[s].done < rows) rows = progress[s].done;
  }
  return rows;
}

/* The rows that a step can do by now. */
static int possible(const struct plan *plan, const struct progress *progress, int s) {
  const struct step *step = &plan->steps[s];
  int n, h, w, row = progress[s].done;
  output_images(plan, step, &n, &h, &w);
  const int ready = complete(plan, progress, step->source);
  const int limit = progress[s].rows - row < progress[s].band ? progress[s].rows : row + progress[s].band;
  int end = row;
  while (end < limit && needed(plan, step, h, end) <= ready) end++;
  for (int i = 0; i < step->count; i++) {
    const int buffer = step->program[i].buffer;
    if (buffer < 0 || is_store(step->program[i].code)) continue;
    const int loaded = complete(plan, progress, buffer);
    end = loaded < end ? loaded : end;
  }
  return end;
}

/* The first row of a buffer that a step still reads; INT32_MAX if it has read them all. */
static int still_read(const struct plan *plan, const struct step *step, const struct progress *progress, int buffer) {
  const struct buffer *b = &plan->buffers[buffer];
  int n, h, w, out, before, first = INT32_MAX;
  if (progress->done == progress->rows) return first;
  output_images(plan, step, &n, &h, &w);
  if (step->source == buffer) {
    first = progress->done;
    if (step->kind == STEP_BINARY_MAX_POOL || step->kind == STEP_POOL) {
      output_size(b->h, step->window.height, step->window.stride_height, 1, step->window.same, &out, &before);
      const int y = progress->done % h * step->window.stride_height - before;
      first = progress->done / h * b->h + (y > 0 ? y : 0);
    } else if (step->kind == STEP_CONVOLUTION || step->kind == STEP_BROADCAST) {
      first = 0;
    }
  }
  for (int i = 0; i < step->count; i++)
    if (step->program[i].buffer == buffer && !is_store(step->program[i].code) && progress->done < first)
      first = progress->done;
  return first;
}

/* How many rows each of the delegate's own float tensors has to keep, going through the tasks once more. */
static void make_rings(struct plan *plan, struct progress *progress) {
  for (int i = 0; i < plan->buffer_count; i++) {
    struct buffer *b = &plan->buffers[i];
    bool viewed = b->view_of >= 0;
    for (int j = 0; j < plan->buffer_count; j++) viewed = viewed || plan->buffers[j].view_of == i;
    b->ring = b->n * b->h;
    if (b->external || b->bits || viewed || b->rank != 4) continue;
    for (int s = 0; s < plan->step_count; s++) progress[s].done = 0;
    int most = 1;
    for (int t = 0; t < plan->task_count; t++) {
      const struct task *task = &plan->tasks[t];
      if (writes(&plan->steps[task->step], i)) {
        int oldest = INT32_MAX;
        for (int s = 0; s < plan->step_count; s++) {
          const int row = still_read(plan, &plan->steps[s], &progress[s], i);
          oldest = row < oldest ? row : oldest;
        }
        if (oldest < task->last && task->last - oldest > most) most = task->last - oldest;
      }
      progress[task->step].done = task->last;
    }
    if (most < b->ring) b->ring = most;
  }
}

static int band(const struct plan *plan, const struct step *step, int rows, int w, int num_threads) {
  int64_t bytes = step->target >= 0 ? (int64_t)w * plan->buffers[step->target].pixel_words * 4 : 0;
  for (int i = 0; i < step->count; i++)
    if (step->program[i].code == OP_STORE) bytes += (int64_t)w * step->channels * 4;
  if (bytes * rows <= SPLIT_BYTES) return rows;
  /* Several threads share a turn: it has to be worth waking them. */
  const int64_t turn = num_threads > 1 ? (int64_t)4 * TURN_BYTES * num_threads : TURN_BYTES;
  return bytes > turn ? 1 : (int)(turn / bytes);
}

bool make_schedule(struct plan *plan, int num_threads) {
  free(plan->tasks);
  plan->task_count = 0;
  struct progress *progress = allocate((size_t)plan->step_count + 1, sizeof *progress);
  int64_t total = 0;
  for (int s = 0; progress && s < plan->step_count; s++) {
    int n, h, w;
    output_images(plan, &plan->steps[s], &n, &h, &w);
    progress[s] = (struct progress){.rows = n * h, .band = band(plan, &plan->steps[s], n * h, w, num_threads)};
    total += progress[s].rows;
  }
  plan->tasks = allocate((size_t)total + 1, sizeof *plan->tasks);
  if (!progress || !plan->tasks) {
    free(progress);
    return false;
  }
  for (bool moved = true; moved;) {
    moved = false;
    for (int s = 0; s < plan->step_count; s++) {
      struct progress *p = &progress[s];
      const int end = possible(plan, progress, s);
      /* No crumbs: a whole turn, or the rest. */
      if (end == p->done || (end - p->done < p->band && end < p->rows)) continue;
      plan->tasks[plan->task_count++] = (struct task){s, p->done, end};
      p->done = end;
      moved = true;
    }
  }
  bool finished = true;
  for (int s = 0; s < plan->step_count; s++) finished = finished && progress[s].done == progress[s].rows;
  make_rings(plan, progress);
  free(progress);
  return finished;
}
