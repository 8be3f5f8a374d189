/* The order of the work: steps with large results take turns, some rows each, so that a row is still in the cache
 * when the next step reads it.
 */
#include "schedule.h"

#include <stdlib.h>

#include "buffers.h"
#include "convolution.h"
#include "memory.h"

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

/* The first place of a step's buffers: those below 0 are its target and its source, or its convolutions' sources; the
 * others are instructions. */
static int first_place(const struct step *step) {
  int place = step->convolution ? 0 : -1;
  for (const struct convolution *conv = step->convolution; conv; conv = conv->next) place--;
  return place;
}

/* The buffer that a step writes (or reads) at a place, or -1. */
static int buffer_at(const struct step *step, int place, bool written) {
  if (place < 0 && written) return place == -1 ? step->target : -1;
  if (place < 0) {
    const struct convolution *conv = step->convolution;
    for (; place < -1; place++) conv = conv->next;
    return conv ? conv->source : step->source;
  }
  const struct planned *op = &step->program[place];
  return op->buffer >= 0 && is_store(op->code) == written ? op->buffer : -1;
}

/* A step that writes a slice of a buffer writes the buffer. False if there is no memory. */
static bool find_steps(const struct plan *plan, bool writers, struct steps_of *of) {
  of->start = allocate((size_t)plan->buffer_count + 2, sizeof *of->start);
  for (int pass = 0; of->start && pass < 2; pass++) {
    for (int s = 0; s < plan->step_count; s++) {
      const struct step *step = &plan->steps[s];
      for (int place = first_place(step); place < step->count && !is_nothing(step); place++)
        for (int b = buffer_at(step, place, writers); b >= 0; b = writers ? plan->buffers[b].view_of : -1)
          if (pass == 0)
            of->start[b + 2]++;
          else
            of->steps[of->start[b + 1]++] = s;
    }
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

/* Limits of a step's turn: bytes of maps that are not split, and of the largest map's rows in it. */
struct turn {
  int64_t whole, bytes;
  int num_threads; /* which share it, in at least two parts each */
};

/* Counted in floats, which integers are made of. */
static int64_t map_bytes(const struct buffer *b) { return (int64_t)b->n * b->h * b->w * b->pixel_words * 4; }

static int whole_of(const struct plan *plan, int buffer) {
  while (plan->buffers[buffer].view_of >= 0) buffer = plan->buffers[buffer].view_of;
  return buffer;
}

/* Finds how many rows each of the delegate's own float tensors must keep, in another pass over the tasks. *kept becomes
 * the most bytes that steps which take turns read again: these rows, and the weights of all of them. */
static bool make_rings(struct plan *plan, struct progress *progress, const struct steps_of *readers, int64_t *kept) {
  int *most = allocate((size_t)plan->buffer_count, sizeof *most);
  bool *fixed = allocate((size_t)plan->buffer_count, sizeof *fixed);
  const bool memory = most && fixed;
  int64_t bytes = 0;
  int unfinished = 0; /* steps */
  *kept = 0;
  for (int s = 0; s < plan->step_count; s++) progress[s].done = 0;
  for (int t = 0; memory && t < plan->task_count; t++) {
    const struct task *task = &plan->tasks[t];
    const struct step *step = &plan->steps[task->step];
    const bool first = task->rows.first == 0, last = task->rows.end == progress[task->step].rows;
    if (step->convolution && first && !last) bytes += (int64_t)packed_bytes(step->convolution);
    for (int place = first_place(step); place < step->count; place++)
      for (int b = buffer_at(step, place, true); b >= 0; b = plan->buffers[b].view_of) {
        const struct buffer *buffer = &plan->buffers[b];
        int oldest = INT32_MAX;
        for (int i = readers->start[b]; i < readers->start[b + 1]; i++) {
          const int s = readers->steps[i], row = still_read(plan, &plan->steps[s], &progress[s], b);
          oldest = row < oldest ? row : oldest;
        }
        const int rows = oldest < task->rows.end ? task->rows.end - oldest : 0;
        if (rows <= most[b]) continue;
        const int all = buffer->n * buffer->h, more = (rows < all ? rows : 0) - most[b]; /* whole maps are streams */
        if (!buffer->bits && buffer->view_of < 0) bytes += map_bytes(buffer) / all * more;
        most[b] = rows;
      }
    progress[task->step].done = task->rows.end;
    unfinished += first - last;
    if (unfinished) continue;
    if (!first && bytes > *kept) *kept = bytes;
    bytes = 0;
  }
  /* A view has the rows of the buffer that contains it. */
  for (int i = 0; memory && i < plan->buffer_count; i++) {
    const int whole = whole_of(plan, i);
    most[whole] = most[i] > most[whole] ? most[i] : most[whole];
    fixed[whole] = fixed[whole] || plan->buffers[i].external || plan->buffers[i].bits || plan->buffers[i].rank != 4;
  }
  for (int i = 0; memory && i < plan->buffer_count; i++) {
    struct buffer *b = &plan->buffers[i];
    const int whole = whole_of(plan, i), rows = most[whole] > 1 ? most[whole] : 1;
    b->ring = b->n * b->h;
    if (!fixed[whole] && rows < b->ring) b->ring = rows;
  }
  free(most);
  free(fixed);
  return memory;
}

/* The rows of a turn: all if the largest map that the step reads or writes stays in the cache from step to step. */
static int band(const struct plan *plan, const struct step *step, int rows, int w, const struct turn *turn) {
  int64_t bytes = 0;
  for (int place = first_place(step); place < step->count; place++)
    for (int written = 0; written < 2; written++) {
      const int b = buffer_at(step, place, written);
      if (b >= 0 && !plan->buffers[b].bits && map_bytes(&plan->buffers[b]) > bytes)
        bytes = map_bytes(&plan->buffers[b]);
    }
  if (bytes <= turn->whole) return rows;
  const struct convolution *conv = step->convolution;
  const int grains = (w + (conv ? conv->tile_pixels : GRAIN) - 1) / (conv ? conv->tile_pixels : GRAIN);
  const int parts = grains * (conv ? most_blocks(conv, step->copies) : 1); /* of a row */
  const int64_t fit = turn->bytes * rows / bytes, shared = (2 * turn->num_threads + parts - 1) / parts;
  return (int)(fit > shared ? fit : shared);
}

/* Whether an earlier step should first write its part of the rows that step `s` writes next. */
static bool is_early(const struct plan *plan, const struct steps_of *writers, const struct progress *progress, int s) {
  for (int place = first_place(&plan->steps[s]); place < plan->steps[s].count; place++)
    for (int b = buffer_at(&plan->steps[s], place, true); b >= 0; b = plan->buffers[b].view_of)
      for (int i = writers->start[b]; i < writers->start[b + 1] && writers->steps[i] < s; i++)
        if (progress[writers->steps[i]].done <= progress[s].done) return true;
  return false;
}

/* The last step that waits for what a step writes, or itself. */
static int last_waiting(const struct plan *plan, const struct steps_of *writers, const struct steps_of *readers,
                        int s) {
  int last = s;
  for (int place = first_place(&plan->steps[s]); place < plan->steps[s].count; place++)
    for (int b = buffer_at(&plan->steps[s], place, true); b >= 0; b = plan->buffers[b].view_of)
      for (int pass = 0; pass < 2; pass++) {
        const struct steps_of *of = pass ? readers : writers;
        if (of->start[b] < of->start[b + 1] && of->steps[of->start[b + 1] - 1] > last)
          last = of->steps[of->start[b + 1] - 1];
      }
  return last;
}

/* Gives the last step that can go on a turn, again and again, so that rows are read as soon as possible. */
static void order_tasks(struct plan *plan, struct progress *progress, const struct steps_of *writers,
                        const struct steps_of *readers) {
  for (int s = plan->step_count - 1; s >= 0;) {
    struct progress *p = &progress[s];
    const int end = possible(plan, writers, progress, s);
    /* Whole turns, or whatever remains. */
    if (end == p->done || (end - p->done < p->band && end < p->rows) || is_early(plan, writers, progress, s)) {
      s--;
      continue;
    }
    struct step *step = &plan->steps[s];
    if (p->done == 0) step->tasks.first = plan->task_count;
    plan->tasks[plan->task_count++] = (struct task){s, {p->done, end}};
    step->tasks.end = plan->task_count;
    p->done = end;
    s = last_waiting(plan, writers, readers, s);
  }
}

/* Orders the work in turns of this size; false if there is no memory or no order. */
static bool make_tasks(struct plan *plan, const struct turn *turn, int64_t *kept) {
  free(plan->tasks);
  plan->task_count = 0;
  struct progress *progress = allocate((size_t)plan->step_count + 1, sizeof *progress);
  int64_t total = 0;
  for (int s = 0; progress && s < plan->step_count; s++) {
    int n, h, w;
    output_images(plan, &plan->steps[s], &n, &h, &w);
    if (is_nothing(&plan->steps[s])) continue;
    progress[s] = (struct progress){.rows = n * h, .band = band(plan, &plan->steps[s], n * h, w, turn)};
    total += progress[s].rows;
  }
  plan->tasks = allocate((size_t)total + 1, sizeof *plan->tasks);
  struct steps_of writers = {NULL, NULL}, readers = {NULL, NULL};
  bool finished = progress && plan->tasks && find_steps(plan, true, &writers) && find_steps(plan, false, &readers);
  if (finished) {
    order_tasks(plan, progress, &writers, &readers);
    for (int s = 0; s < plan->step_count; s++) finished = finished && progress[s].done == progress[s].rows;
    finished = make_rings(plan, progress, &readers, kept) && finished;
  }
  free(progress);
  free_steps_of(&writers);
  free_steps_of(&readers);
  return finished;
}

bool make_schedule(struct plan *plan, int num_threads, int64_t cache) {
  struct turn turn = {.whole = cache / 8 * 7, .num_threads = num_threads}, best = turn;
  int64_t kept, least = INT64_MAX;
  /* Turns of maps hardly larger than the cache may read more weights again than they save. */
  for (int i = 0; i < 2; i++, turn.whole *= 2) {
    for (turn.bytes = cache / 4; turn.bytes >= cache / 64; turn.bytes /= 2) {
      if (!make_tasks(plan, &turn, &kept)) return false;
      if (kept <= cache / 2) return true; /* the other half is for maps that are read or written whole */
      if (kept >= least) continue;
      least = kept;
      best = turn;
    }
    if (least <= cache) break;
  }
  return make_tasks(plan, &best, &kept);
}
