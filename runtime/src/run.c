/* Runs each kind of step for some rows of its output, which threads share. */
#include "run.h"

#include <float.h>
#include <string.h>

#include "convolution.h"
#include "denormals.h"
#include "program.h"
#include "schedule.h"
#include "threads.h"
#include "windows.h"

static void run_pool(const struct job *job, struct range pixels) {
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
  for (int first = pixels.first; first < pixels.end;) {
    const int row = first / target->w, x = first % target->w, n = row / target->h, y = row % target->h;
    /* The pixels whose windows lie inside are one run; each other pixel is its own run. */
    const int from = x * w->stride_width - left;
    int run = 1;
    if (from >= 0 && from + w->width <= source->w) {
      run = (source->w - w->width - from) / w->stride_width + 1;
      if (run > target->w - x) run = target->w - x;
      if (run > pixels.end - first) run = pixels.end - first;
    }
    /* TFLite begins with 0 and with the lowest number, which affects the signs of zeros and NaNs. */
    struct instruction program[MAX_POOLED * MAX_POOLED + 3];
    const ptrdiff_t stride = run > 1 ? pixel * w->stride_width : 0;
    int inside = 0, count = 0;
    for (int ky = 0; ky < w->height; ky++)
      for (int kx = 0; kx < w->width; kx++) {
        const int iy = y * w->stride_height - top + ky, ix = from + kx;
        if (iy < 0 || iy >= source->h || ix < 0 || ix >= source->w) continue;
        program[count++] = (struct instruction){.code = !inside++       ? OP_LOAD
                                                        : step->maximum ? OP_MAX_LOADED
                                                                        : OP_ADD_LOADED,
                                                .stride = stride,
                                                .data = row_of(source, n * source->h + iy) + ix * pixel};
        if (inside == 1 && step->maximum) program[count++] = (struct instruction){.code = OP_AT_LEAST, .low = -FLT_MAX};
      }
    if (!step->maximum) program[count++] = (struct instruction){.code = OP_MEAN, .low = 1.0f / (float)inside};
    program[count++] =
        (struct instruction){.code = OP_STORE, .data = row_of(target, row) + x * target_pixel, .stride = target_pixel};
    if (count != known) function = find_run(job->partition->options->kernels, program, known = count);
    function(program, count, step->channels, run);
    first += run;
  }
}

/* The part of a window that lies inside an image. */
static struct range clip(int start, int length, int in) {
  return (struct range){start > 0 ? start : 0, length < in - start ? start + length : in};
}

static void run_binary_max_pool(const struct job *job, struct range pixels) {
  const struct step *step = job->step;
  const struct buffer *source = &job->partition->plan->buffers[step->source];
  const struct buffer *target = &job->partition->plan->buffers[step->target];
  const struct window *w = &step->window;
  const struct image in = image_of(source), out = image_of(target);
  int size, top, left;
  output_size(source->h, w->height, w->stride_height, 1, w->same, &size, &top);
  output_size(source->w, w->width, w->stride_width, 1, w->same, &size, &left);
  for (int p = pixels.first; p < pixels.end; p++) {
    const int x = p % target->w, y = p / target->w % target->h, n = p / target->w / target->h;
    const struct range lines = clip(y * w->stride_height - top, w->height, source->h);
    const struct range columns = clip(x * w->stride_width - left, w->width, source->w);
    uint32_t *to = out.data + n * out.plane + y * out.row + (ptrdiff_t)x * target->pixel_words;
    for (int i = 0; i < target->pixel_words; i++) to[i] = UINT32_MAX;
    for (int iy = lines.first; iy < lines.end; iy++)
      for (int ix = columns.first; ix < columns.end; ix++) {
        const uint32_t *from = in.data + n * in.plane + iy * in.row + (ptrdiff_t)ix * source->pixel_words;
        for (int i = 0; i < target->pixel_words; i++) to[i] &= from[i];
      }
  }
}

static void run_dequantize(const struct job *job, struct range pixels) {
  const struct step *step = job->step;
  const struct buffer *source = &job->partition->plan->buffers[step->source];
  const struct buffer *target = &job->partition->plan->buffers[step->target];
  const struct image in = image_of(source);
  for (int p = pixels.first; p < pixels.end; p++) {
    const int x = p % target->w, row = p / target->w;
    char *to = pixel_of(target, p);
    const uint32_t *from =
        in.data + row / target->h * in.plane + row % target->h * in.row + (ptrdiff_t)x * source->pixel_words;
    for (int c = 0; c < step->channels; c++) {
      const bool negative = from[c / 32] >> (c % 32) & 1;
      if (target->type == kTfLiteFloat32) {
        const float v = negative ? -1.0f : 1.0f;
        memcpy(to + c * 4, &v, 4);
      } else {
        to[c] = target->type == kTfLiteBool ? (char)!negative : (char)(negative ? step->low : step->high);
      }
    }
  }
}

static void run_repeat(const struct job *job, struct range pixels) {
  const struct buffer *source = &job->partition->plan->buffers[job->step->source];
  const struct buffer *target = &job->partition->plan->buffers[job->step->target];
  const size_t size = element_size(target), bytes = (size_t)source->pixel_words * size;
  for (int p = pixels.first; p < pixels.end; p++)
    for (size_t c = 0; c < (size_t)job->step->channels * size; c += bytes)
      memcpy(pixel_of(target, p) + c, pixel_of(source, p), bytes);
}

/* Copies each pixel of a tensor to all its places in a larger one. */
static void run_broadcast(const struct job *job, struct range pixels) {
  const struct buffer *source = &job->partition->plan->buffers[job->step->source];
  const struct buffer *target = &job->partition->plan->buffers[job->step->target];
  for (int p = pixels.first; p < pixels.end; p++) {
    int index = p, from = 0, count = 1;
    for (int d = target->rank - 2; d >= 0; d--) {
      const int dim = d - target->rank + source->rank, size = dim < 0 ? 1 : source->dims[dim];
      if (size > 1) from += index % target->dims[d] * count;
      index /= target->dims[d];
      count *= size;
    }
    const float *values = (const float *)(const void *)pixel_of(source, from);
    float *to = (float *)(void *)pixel_of(target, p);
    for (int c = 0; c < job->step->channels; c++) to[c] = values[source->pixel_words > 1 ? c : 0];
  }
}

/* Parts of a turn for each thread: the last ones to end should be short. Parts of the same pixels cost more, because
 * they write into the same cache lines; so there are only as many as needed. */
enum { PARTS = 8, FEWEST_PARTS = 2 };

static int grains_of(const struct job *job) { return (length(job->pixels) + job->grain - 1) / job->grain; }

/* Weights that would not stay in the cache while all pixels meet them are taken block by block, each for all pixels;
 * small maps are shared in blocks, too. */
static void share_work(struct job *job) {
  const struct partition *partition = job->partition;
  const struct convolution *conv = job->step->convolution;
  const int threads = partition->num_threads, most = threads > 1 ? PARTS * threads : 1;
  const int fewest = threads > 1 ? FEWEST_PARTS * threads : 1;
  while (conv && job->grain > conv->tile_pixels && grains_of(job) < most) job->grain -= conv->tile_pixels;
  const int grains = grains_of(job);
  job->blocks = 1;
  job->pieces = grains < most ? grains : most;
  if (!conv) return;
  const int64_t stays = partition->cache_bytes / (threads > 1 ? 2 * threads : 4);
  const int64_t by_weights = ((int64_t)packed_bytes(conv) + stays - 1) / stays,
                by_parts = (fewest + grains - 1) / grains;
  const int64_t wanted = by_weights > by_parts ? by_weights : by_parts, possible = most_blocks(conv, job->step->copies);
  const int blocks = (int)(wanted < possible ? wanted : possible);
  job->block = blocks > 1 ? round_up((conv->channels_out + blocks - 1) / blocks, BLOCK) : conv->channels_out;
  job->blocks = (conv->channels_out + job->block - 1) / job->block;
  const int pieces = (most + job->blocks - 1) / job->blocks;
  job->pieces = grains < pieces ? grains : pieces;
}

static void run_elementwise(const struct job *job, struct range pixels) {
  struct cursor cursor;
  start_cursor(&cursor, job);
  run_program(&cursor, pixels.first, length(pixels), NULL);
}

static void run_chunk(void *argument, int thread, int chunk) {
  const struct job *job = argument;
  const unsigned long long saved = flush_denormals();
  const int64_t grains = grains_of(job), piece = chunk % job->pieces;
  const struct range range = {(int)(grains * piece / job->pieces), (int)(grains * (piece + 1) / job->pieces)};
  const int first = job->pixels.first + range.first * job->grain, end = job->pixels.first + range.end * job->grain;
  const struct range pixels = {first, end < job->pixels.end ? end : job->pixels.end};
  switch (job->step->kind) {
    case STEP_CONVOLUTION:
      run_convolution(job, thread, range, chunk / job->pieces);
      break;
    case STEP_ELEMENTWISE:
      run_elementwise(job, pixels);
      break;
    case STEP_POOL:
      run_pool(job, pixels);
      break;
    case STEP_BINARY_MAX_POOL:
      run_binary_max_pool(job, pixels);
      break;
    case STEP_DEQUANTIZE:
      run_dequantize(job, pixels);
      break;
    case STEP_REPEAT:
      run_repeat(job, pixels);
      break;
    case STEP_BROADCAST:
      run_broadcast(job, pixels);
      break;
  }
  restore_denormals(saved);
}

void run_task(const struct partition *partition, const struct task *task) {
  struct step *step = &partition->plan->steps[task->step];
  struct job job = {.partition = partition, .step = step, .grain = GRAIN};
  int n;
  output_images(partition->plan, step, &n, &job.h, &job.w);
  start_program(&job);
  if (step->kind == STEP_CONVOLUTION) start_convolutions(&job, task);
  job.pixels = (struct range){task->rows.first * job.w, task->rows.end * job.w};
  if (length(job.pixels) == 0) return;
  share_work(&job);
  const int parts = job.blocks * job.pieces;
  if (!step->fewest_parts || parts < step->fewest_parts) step->fewest_parts = parts;
  run_parallel(partition->shared->threads, partition->num_threads, run_chunk, &job, parts);
}
