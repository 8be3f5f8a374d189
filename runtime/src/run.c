/* Runs each kind of step for some rows of its output, which threads share. */
#include "run.h"

#include <float.h>
#include <string.h>

#include "denormals.h"
#include "program.h"
#include "threads.h"
#include "windows.h"

enum { PIXELS_OF_GRAIN = 64 };

static void run_pool(const struct job *job, struct range rows) {
  const struct step *step = job->step;
  const struct buffer *source = &job->partition->plan->buffers[step->source];
  const struct buffer *target = &job->partition->plan->buffers[step->target];
  const struct window *w = &step->window;
  const ptrdiff_t pixel = (ptrdiff_t)source->stride, target_pixel = (ptrdiff_t)target->stride;
  int size, top, left;
  output_size(source->h, w->height, w->stride_height, 1, w->same, &size, &top);
  output_size(source->w, w->width, w->stride_width, 1, w->same, &size, &left);
  run_function function = NULL; /* for programs of `known` instructions */
  int known = 0;
  for (int row = rows.first; row < rows.end; row++) {
    const int n = row / target->h, y = row % target->h;
    for (int x = 0; x < target->w;) {
      /* The pixels whose windows lie inside are one run; each other pixel is its own run. */
      const int from = x * w->stride_width - left;
      int run = 1;
      if (from >= 0 && from + w->width <= source->w) {
        run = (source->w - w->width - from) / w->stride_width + 1;
        if (run > target->w - x) run = target->w - x;
      }
      /* TFLite begins with 0 and with the lowest number, which affects the signs of zeros and NaNs. */
      struct instruction program[MAX_POOLED * MAX_POOLED + 3];
      const ptrdiff_t stride = run > 1 ? pixel * w->stride_width : 0;
      int pixels = 0, count = 0;
      for (int ky = 0; ky < w->height; ky++)
        for (int kx = 0; kx < w->width; kx++) {
          const int iy = y * w->stride_height - top + ky, ix = from + kx;
          if (iy < 0 || iy >= source->h || ix < 0 || ix >= source->w) continue;
          program[count++] = (struct instruction){.code = !pixels++       ? OP_LOAD
                                                          : step->maximum ? OP_MAX_LOADED
                                                                          : OP_ADD_LOADED,
                                                  .stride = stride,
                                                  .data = row_of(source, n * source->h + iy) + ix * pixel};
          if (pixels == 1 && step->maximum)
            program[count++] = (struct instruction){.code = OP_AT_LEAST, .low = -FLT_MAX};
        }
      if (!step->maximum) program[count++] = (struct instruction){.code = OP_MEAN, .low = 1.0f / (float)pixels};
      program[count++] = (struct instruction){
          .code = OP_STORE, .data = row_of(target, row) + x * target_pixel, .stride = target_pixel};
      if (count != known) function = find_run(job->partition->options->kernels, program, known = count);
      function(program, count, step->channels, run);
      x += run;
    }
  }
}

/* The part of a window that lies inside an image. */
static struct range inside(int start, int length, int in) {
  return (struct range){start > 0 ? start : 0, length < in - start ? start + length : in};
}

static void run_binary_max_pool(const struct job *job, struct range rows) {
  const struct step *step = job->step;
  const struct buffer *source = &job->partition->plan->buffers[step->source];
  const struct buffer *target = &job->partition->plan->buffers[step->target];
  const struct window *w = &step->window;
  const struct image in = image_of(source), out = image_of(target);
  int size, top, left;
  output_size(source->h, w->height, w->stride_height, 1, w->same, &size, &top);
  output_size(source->w, w->width, w->stride_width, 1, w->same, &size, &left);
  for (int row = rows.first; row < rows.end; row++) {
    const int n = row / target->h, y = row % target->h;
    const struct range lines = inside(y * w->stride_height - top, w->height, source->h);
    for (int x = 0; x < target->w; x++) {
      const struct range columns = inside(x * w->stride_width - left, w->width, source->w);
      uint32_t *to = out.data + n * out.plane + y * out.row + (ptrdiff_t)x * target->pixel_words;
      for (int i = 0; i < target->pixel_words; i++) to[i] = UINT32_MAX;
      for (int iy = lines.first; iy < lines.end; iy++)
        for (int ix = columns.first; ix < columns.end; ix++) {
          const uint32_t *from = in.data + n * in.plane + iy * in.row + (ptrdiff_t)ix * source->pixel_words;
          for (int i = 0; i < target->pixel_words; i++) to[i] &= from[i];
        }
    }
  }
}

static void run_dequantize(const struct job *job, struct range rows) {
  const struct step *step = job->step;
  const struct buffer *source = &job->partition->plan->buffers[step->source];
  const struct buffer *target = &job->partition->plan->buffers[step->target];
  const struct image in = image_of(source);
  for (int row = rows.first; row < rows.end; row++)
    for (int x = 0; x < target->w; x++) {
      char *to = row_of(target, row) + (size_t)x * target->stride;
      const uint32_t *from =
          in.data + row / target->h * in.plane + row % target->h * in.row + (ptrdiff_t)x * source->pixel_words;
      for (int c = 0; c < step->channels; c++) {
        const bool negative = from[c / 32] >> (c % 32) & 1;
        to[c] = target->type == kTfLiteBool ? (char)!negative : (char)(negative ? step->low : step->high);
      }
    }
}

static void run_repeat(const struct job *job, struct range rows) {
  const struct buffer *source = &job->partition->plan->buffers[job->step->source];
  const struct buffer *target = &job->partition->plan->buffers[job->step->target];
  const size_t size = element_size(target), bytes = (size_t)source->pixel_words * size;
  for (int row = rows.first; row < rows.end; row++)
    for (int x = 0; x < target->w; x++) {
      const char *from = row_of(source, row) + (size_t)x * source->stride;
      char *to = row_of(target, row) + (size_t)x * target->stride;
      for (size_t c = 0; c < (size_t)job->step->channels * size; c += bytes) memcpy(to + c, from, bytes);
    }
}

/* Copies each pixel of a tensor to all its places in a larger one. */
static void run_broadcast(const struct job *job, struct range rows) {
  const struct buffer *source = &job->partition->plan->buffers[job->step->source];
  const struct buffer *target = &job->partition->plan->buffers[job->step->target];
  for (int row = rows.first; row < rows.end; row++)
    for (int x = 0; x < target->w; x++) {
      int index = row * target->w + x, from = 0, pixels = 1;
      for (int d = target->rank - 2; d >= 0; d--) {
        const int dim = d - target->rank + source->rank, size = dim < 0 ? 1 : source->dims[dim];
        if (size > 1) from += index % target->dims[d] * pixels;
        index /= target->dims[d];
        pixels *= size;
      }
      const float *values =
          (const float *)(const void *)(row_of(source, from / source->w) + (size_t)(from % source->w) * source->stride);
      float *to = (float *)(void *)(row_of(target, row) + (size_t)x * target->stride);
      for (int c = 0; c < job->step->channels; c++) to[c] = values[source->pixel_words > 1 ? c : 0];
    }
}

static void run_chunk(void *argument, int thread, int chunk) {
  const struct job *job = argument;
  const unsigned long long saved = flush_denormals();
  const bool by_pixel = job->step->target < 0;
  const int64_t pixels = length(job->pixels);
  const int64_t parts = by_pixel ? (pixels + job->grain - 1) / job->grain : pixels / job->w;
  const int start = by_pixel ? 0 : job->pixels.first / job->w;
  const struct range range = {start + (int)(parts * chunk / job->chunks),
                              start + (int)(parts * (chunk + 1) / job->chunks)};
  switch (job->step->kind) {
    case STEP_CONVOLUTION:
      run_convolution(job, thread, range);
      break;
    case STEP_ELEMENTWISE: {
      const int first = job->pixels.first + range.first * job->grain, end = job->pixels.first + range.end * job->grain;
      struct cursor cursor;
      start_cursor(&cursor, job);
      run_program(&cursor, first, (end < job->pixels.end ? end : job->pixels.end) - first, NULL);
      break;
    }
    case STEP_POOL:
      run_pool(job, range);
      break;
    case STEP_BINARY_MAX_POOL:
      run_binary_max_pool(job, range);
      break;
    case STEP_DEQUANTIZE:
      run_dequantize(job, range);
      break;
    case STEP_REPEAT:
      run_repeat(job, range);
      break;
    case STEP_BROADCAST:
      run_broadcast(job, range);
      break;
  }
  restore_denormals(saved);
}

void run_task(const struct partition *partition, const struct task *task) {
  const struct step *step = &partition->plan->steps[task->step];
  if (step->kind == STEP_ELEMENTWISE && step->count == 1) return; /* a view does all its work */
  struct job job = {.partition = partition, .step = step, .grain = PIXELS_OF_GRAIN};
  int n;
  output_images(partition->plan, step, &n, &job.h, &job.w);
  start_program(&job);
  if (step->kind == STEP_CONVOLUTION) start_convolutions(&job, task);
  job.pixels = (struct range){task->rows.first * job.w, task->rows.end * job.w};
  const int pixels = length(job.pixels);
  if (pixels == 0) return;
  const int most = step->target >= 0 ? pixels / job.w : (pixels + job.grain - 1) / job.grain;
  job.chunks = partition->num_threads > 1 ? 4 * partition->num_threads : 1;
  if (job.chunks > most) job.chunks = most;
  run_parallel(partition->shared->threads, partition->num_threads, run_chunk, &job, job.chunks);
}
