/* The order of the work: steps with large results take turns, some rows each, so that a row is still in the cache
 * when the next step reads it.
 */
#include "schedule.h"

#include <stdlib.h>

#include "buffers.h"
#include "convolution.h"
#include "memory.h"

/* Bytes of results that are split into turns, and of a turn. The sanitizers' builds use small ones. */
#ifndef TURN_BYTES
#define SPLIT_BYTES (1 << 20)
#define TURN_BYTES (48 << 10)
#endif

/* A convolution has its own. */
static bool has_window(const struct step *step) { return step->window.height > 0; }

struct progress {
  int rows, done, band;
};

/* Rows of its window's source (of a convolution's, if one is given) that a step needs for its output up to `row`. */
static int needed(const struct plan *plan, const struct step *step, const struct convolution *conv, int h, int row) {
  const struct buffer *source = &plan->buffers[conv ? conv->source : step->source];
  const struct window *w = &step->window;
  int out, before, last;
  if (step->kind == STEP_BROADCAST) return source->n * source->h;
  if (conv) {
    /* The copy with a border is made of all rows, before the first task. */
    if (conv->padded) return source->n * source->h;
    last = row % h * conv->window.stride_height + conv->rows.start +
           (conv->rows.taps.end - conv->rows.taps.first - 1) * conv->window.dilation_height;
  } else if (has_window(step)) {
    output_size(source->h, w->height, w->stride_height, 1, w->same, &out, &before);
    last = row % h * w->stride_height - before + w->height - 1;
  } else {
    return row + 1;
  }
  return row / h * source->h + (last < source->h ? last + 1 : source->h);
}

/* The steps that write (or read) each buffer: the steps of buffer b begin at start[b]. */
struct steps_of {
  int *start, *steps;
};

/* The buffer that a step writes (or reads) at a place: -1 is its target (or source), others are instructions. */
static int buffer_at(const struct step *step, int place, bool written) {
  if (place < 0) return written ? step->target : step->source;
  const struct planned *op = &step->program[place];
  return op->buffer >= 0 && is_store(op->code) == written ? op->buffer : -1;
}

/* A step that writes a slice of a buffer writes the buffer. False if there is no memory. */
static bool find_steps(const struct plan *plan, bool writers, struct steps_of *of) {
  of->start = allocate((size_t)plan->buffer_count + 2, sizeof *of->start);
  for (int pass = 0; of->start && pass < 2; pass++) {
    for (int s = 0; s < plan->step_count; s++)
      for (int place = -1; place < plan->steps[s].count; place++)
        for (int b = buffer_at(&plan->steps[s], place, writers); b >= 0; b = writers ? plan->buffers[b].view_of : -1)
          if (pass == 0)
            of->start[b + 2]++;
          else
            of->steps[of->start[b + 1]++] = s;
    if (pass > 0) break;
    for (int b = 2; b < plan->buffer_count + 2; b++) of->start[b] += of->start[b - 1];
    of->steps = allocate((size_t)of->start[plan->buffer_count + 1], sizeof *of->steps);
    if (!of->steps) return false;
  }
  return of->start;
}

static void free_steps_of(struct steps_of *of) {
  free(of->start);
  free(of->steps);
}

/* Rows of a buffer that are complete: all steps that write to it, or to a part in it, have done them. */
static int complete(const struct steps_of *writers, const struct progress *progress, int buffer) {
  int rows = INT32_MAX;
  for (int i = writers->start[buffer]; i < writers->start[buffer + 1]; i++)
    if (progress[writers->steps[i]].done < rows) rows = progress[writers->steps[i]].done;
  return rows;
}

/* Whether the step loads what it has just stored. */
static bool stores_before(const struct step *step, int load) {
  for (int i = 0; i < load; i++)
    if (step->program[i].buffer == step->program[load].buffer && step->program[i].code == OP_STORE) return true;
  return false;
}

/* The rows that a step can do now. */
static int possible(const struct plan *plan, const struct steps_of *writers, const struct progress *progress, int s) {
  const struct step *step = &plan->steps[s];
  int n, h, w, row = progress[s].done;
  output_images(plan, step, &n, &h, &w);
  const struct convolution *conv = step->convolution;
  int end = progress[s].rows - row < progress[s].band ? progress[s].rows : row + progress[s].band;
  do {
    const int ready = complete(writers, progress, conv ? conv->source : step->source), limit = end;
    end = row;
    while (end < limit && needed(plan, step, conv, h, end) <= ready) end++;
    if (conv) conv = conv->next;
  } while (conv);
  for (int i = 0; i < step->count; i++) {
    const int buffer = step->program[i].buffer;
    if (buffer < 0 || is_store(step->program[i].code) || stores_before(step, i)) continue;
    const int loaded = complete(writers, progress, buffer);
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
    if (has_window(step)) {
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

/* Finds how many rows each of the delegate's own float tensors must keep, in another pass over the tasks. */
static bool make_rings(struct plan *plan, struct progress *progress) {
  struct steps_of readers = {NULL, NULL};
  int *most = allocate((size_t)plan->buffer_count, sizeof *most);
  bool *viewed = allocate((size_t)plan->buffer_count, sizeof *viewed);
  const bool memory = find_steps(plan, false, &readers) && most && viewed;
  for (int s = 0; s < plan->step_count; s++) progress[s].done = 0;
  for (int t = 0; memory && t < plan->task_count; t++) {
    const struct task *task = &plan->tasks[t];
    const struct step *step = &plan->steps[task->step];
    for (int place = -1; place < step->count; place++) {
      const int b = buffer_at(step, place, true);
      if (b < 0) continue;
      int oldest = INT32_MAX;
      for (int i = readers.start[b]; i < readers.start[b + 1]; i++) {
        const int s = readers.steps[i], row = still_read(plan, &plan->steps[s], &progress[s], b);
        oldest = row < oldest ? row : oldest;
      }
      if (oldest < task->rows.end && task->rows.end - oldest > most[b]) most[b] = task->rows.end - oldest;
    }
    progress[task->step].done = task->rows.end;
  }
  for (int i = 0; memory && i < plan->buffer_count; i++)
    if (plan->buffers[i].view_of >= 0) viewed[i] = viewed[plan->buffers[i].view_of] = true;
  for (int i = 0; memory && i < plan->buffer_count; i++) {
    struct buffer *b = &plan->buffers[i];
    const int rows = most[i] > 1 ? most[i] : 1;
    b->ring = b->n * b->h;
    if (!b->external && !b->bits && !viewed[i] && b->rank == 4 && rows < b->ring) b->ring = rows;
  }
  free_steps_of(&readers);
  free(most);
  free(viewed);
  return memory;
}

/* Integers count like the floats that they are made of, which the step may read. */
static int band(const struct plan *plan, const struct step *step, int rows, int w, int num_threads) {
  int64_t bytes = step->target >= 0 ? (int64_t)w * plan->buffers[step->target].pixel_words * 4 : 0;
  for (int i = 0; i < step->count; i++)
    if (step->program[i].code == OP_STORE || step->program[i].code == OP_STORE_QUANTIZED)
      bytes += (int64_t)w * step->channels * 4;
  if (bytes * rows <= SPLIT_BYTES) return rows;
  /* Several threads share a turn: it must be worth waking them. */
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
  struct steps_of writers = {NULL, NULL};
  if (!progress || !plan->tasks || !find_steps(plan, true, &writers)) {
    free(progress);
    free_steps_of(&writers);
    return false;
  }
  for (bool moved = true; moved;) {
    moved = false;
    for (int s = 0; s < plan->step_count; s++) {
      struct progress *p = &progress[s];
      const int end = possible(plan, &writers, progress, s);
      /* Whole turns, or whatever remains. */
      if (end == p->done || (end - p->done < p->band && end < p->rows)) continue;
      plan->tasks[plan->task_count++] = (struct task){s, {p->done, end}};
      p->done = end;
      moved = true;
    }
  }
  bool finished = true;
  for (int s = 0; s < plan->step_count; s++) finished = finished && progress[s].done == progress[s].rows;
  finished = make_rings(plan, progress) && finished;
  free(progress);
  free_steps_of(&writers);
  return finished;
}
