/* Shapes and memory of a partition, and its run. */
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "delegate.h"

enum { PIXELS_OF_CHUNK = 64 };

/* ---- Shapes ---- */

static void set_shape(struct buffer *b, const struct shape *shape) {
  b->rank = shape->rank;
  memcpy(b->dims, shape->dims, sizeof b->dims);
  b->pixel_words = channels_of_shape(shape);
  b->n = b->h = b->w = 1;
  if (shape->rank == 4) {
    b->n = shape->dims[0];
    b->h = shape->dims[1];
    b->w = shape->dims[2];
  } else {
    for (int i = 0; i < shape->rank - 1; i++) b->n *= shape->dims[i];
  }
  b->top = b->left = b->bottom = b->right = 0;
}

static TfLiteStatus refuse(TfLiteContext *context, const struct plan *plan, const struct step *step, const char *why) {
  const struct buffer *source = &plan->buffers[step->source];
  const struct shape *shape = &plan->shapes[source->shaped_like];
  char text[SHAPE_TEXT];
  context->ReportError(context, "larq-rep: operator %d (%s), tensor %d '%.60s' of shape %s: %s.", step->op->node,
                       step->name, source->tensor, tensor_name(context, source->tensor), shape_text(shape, text), why);
  return kTfLiteError;
}

static int larger(int a, int b) { return a > b ? a : b; }

/* Gives the buffers their shapes, and packed images the borders that windows reach into. */
static void shape_buffers(struct plan *plan) {
  for (int i = 0; i < plan->buffer_count; i++)
    set_shape(&plan->buffers[i], &plan->shapes[plan->buffers[i].shaped_like]);
  for (int s = 0; s < plan->step_count; s++) {
    struct convolution *conv = plan->steps[s].convolution;
    struct buffer *source = &plan->buffers[plan->steps[s].source];
    if (!conv) continue;
    place_windows(conv, source);
    if (source->external) continue;
    source->top = larger(conv->rows.before, source->top);
    source->left = larger(conv->columns.before, source->left);
    source->bottom = larger(conv->rows.behind, source->bottom);
    source->right = larger(conv->columns.behind, source->right);
  }
}

/* ---- Memory ---- */

static size_t element_size(const struct buffer *b) {
  return b->type == kTfLiteInt8 || b->type == kTfLiteBool ? 1 : 4;
}

/* Less than 2^36: numbers are counted in 29 bits, and borders are no wider than twice the image. */
static uint64_t buffer_bytes(const struct buffer *b) {
  const uint64_t rows = b->bits ? (uint64_t)b->n * (uint64_t)(b->top + b->h + b->bottom) : (uint64_t)b->ring;
  return (rows * (uint64_t)(b->left + b->w + b->right) * (uint64_t)b->pixel_words * element_size(b) + 63) / 64 * 64;
}

/* Buffers that live at one of the steps from first to last live at all of them. */
static void widen_lifetimes(struct plan *plan, int first, int last) {
  for (int i = 0; i < plan->buffer_count; i++) {
    struct buffer *b = &plan->buffers[i];
    if (b->first > last || b->last < first) continue;
    if (b->first > first) b->first = first;
    if (b->last < last) b->last = last;
  }
}

/* First fit by lifetime. Packed images keep their place for good, so that their borders stay zero. */
static void place_buffers(struct plan *plan, uint64_t *total) {
  *total = 0;
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
        const bool alive = b->bits || other->bits || (b->first <= other->last && other->first <= b->last);
        const uint64_t end = other->offset + buffer_bytes(other);
        if (alive && b->offset < end && other->offset < b->offset + bytes) {
          b->offset = end;
          moved = true;
        }
      }
    }
    if (b->offset + bytes > *total) *total = b->offset + bytes;
  }
}

static uint64_t scratch_bytes(const struct convolution *conv) {
  return ((uint64_t)conv->tile_pixels * conv->acc_stride * sizeof(int32_t) + 127) / 64 * 64;
}

/* From the shapes of the partition's inputs those of all that is computed. The steps are made anew where they were
 * for other channels, or where other operands have to be broadcast. */
static TfLiteStatus prepare_shapes(TfLiteContext *context, struct plan *plan, const struct options *options) {
  struct shape *shapes = allocate(plan->tensor_count, sizeof *shapes);
  if (!shapes) {
    context->ReportError(context, "larq-rep: no memory for the shapes of %zu tensors.", plan->tensor_count);
    return kTfLiteError;
  }
  if (find_shapes(context, plan, shapes) != kTfLiteOk) {
    free(shapes);
    return kTfLiteError;
  }
  const bool same = same_steps(plan, shapes);
  free(plan->shapes);
  plan->shapes = shapes;
  if (!same && make_steps(context, plan, options) != kTfLiteOk) return kTfLiteError;
  shape_buffers(plan);
  return kTfLiteOk;
}

static TfLiteStatus prepare_convolutions(TfLiteContext *context, struct partition *partition) {
  const struct plan *plan = partition->plan;
  partition->scratch_bytes = 0;
  for (int s = 0; s < plan->step_count; s++) {
    struct step *step = &plan->steps[s];
    if (step->kind != STEP_CONVOLUTION) continue;
    const uint64_t bytes = scratch_bytes(step->convolution);
    if (bytes > partition->scratch_bytes) partition->scratch_bytes = bytes;
    if (!prepare_convolution(step->convolution, &plan->buffers[step->source]))
      return refuse(context, plan, step, "no memory for its weights and borders, or an image of more than 2^31 words");
  }
  return kTfLiteOk;
}

static TfLiteStatus resize_outputs(TfLiteContext *context, const struct plan *plan) {
  for (int i = 0; i < plan->buffer_count; i++) {
    const struct buffer *b = &plan->buffers[i];
    if (!b->external || plan->producer[b->tensor] < 0) continue;
    /* The runtime takes the array over and frees it. */
    TfLiteIntArray *dims = malloc(sizeof *dims + (size_t)b->rank * sizeof(int));
    if (dims) {
      dims->size = b->rank;
      memcpy(dims->data, b->dims, (size_t)b->rank * sizeof(int));
    }
    if (!dims || context->ResizeTensor(context, &context->tensors[b->tensor], dims) != kTfLiteOk) {
      char text[SHAPE_TEXT];
      context->ReportError(context, "larq-rep: tensor %d '%.60s': no memory for its new shape %s.", b->tensor,
                           tensor_name(context, b->tensor), shape_text(&plan->shapes[b->tensor], text));
      return kTfLiteError;
    }
  }
  return kTfLiteOk;
}

/* Memory of the tensors that only the partition sees, and of the threads' sums. */
static TfLiteStatus allocate_memory(TfLiteContext *context, struct partition *partition) {
  const struct plan *plan = partition->plan;
  free(partition->memory);
  free(partition->scratch);
  partition->memory = allocate(partition->memory_bytes, 1);
  partition->scratch = allocate(partition->scratch_bytes, (uint64_t)partition->num_threads);
  if (partition->memory && partition->scratch) return kTfLiteOk;
  const struct step *largest = plan->steps;
  uint64_t most = 0;
  for (int s = 0; s < plan->step_count; s++) {
    const struct buffer *b = &plan->buffers[plan->steps[s].source];
    if (b->external || buffer_bytes(b) <= most) continue;
    most = buffer_bytes(b);
    largest = &plan->steps[s];
  }
  char why[128];
  snprintf(why, sizeof why, "no memory for the %llu bytes of all tensors between the operators",
           (unsigned long long)partition->memory_bytes);
  return refuse(context, plan, largest, why);
}

TfLiteStatus prepare_partition(TfLiteContext *context, struct partition *partition) {
  struct plan *plan = partition->plan;
  if (prepare_shapes(context, plan, partition->options) != kTfLiteOk ||
      prepare_convolutions(context, partition) != kTfLiteOk || resize_outputs(context, plan) != kTfLiteOk)
    return kTfLiteError;
  partition->num_threads = partition->options->num_threads ? partition->options->num_threads
                           : context->recommended_num_threads > 0 ? context->recommended_num_threads
                                                                  : 1;
  if (partition->num_threads > MAX_THREADS) partition->num_threads = MAX_THREADS;
  if (!make_schedule(plan, partition->num_threads)) {
    context->ReportError(context, "larq-rep: no memory, or no order for the steps of the partition.");
    return kTfLiteError;
  }
  /* Lifetimes are counted in steps; where these take turns, they live together. */
  for (int i = 0; i + 1 < plan->task_count; i++)
    if (plan->tasks[i + 1].step < plan->tasks[i].step) widen_lifetimes(plan, plan->tasks[i + 1].step, plan->tasks[i].step);
  place_buffers(plan, &partition->memory_bytes);
  return allocate_memory(context, partition);
}

/* ---- Runs ---- */

/* A packed image with its border. */
struct image {
  uint32_t *data;
  ptrdiff_t row, plane; /* words */
};

static struct image image_of(const struct buffer *b) {
  const ptrdiff_t row = (ptrdiff_t)(b->left + b->w + b->right) * b->pixel_words;
  return (struct image){(uint32_t *)(void *)b->data + b->top * row + (ptrdiff_t)b->left * b->pixel_words, row,
                        row * (b->top + b->h + b->bottom)};
}

/* Where a row of a tensor that is not packed, counted through all images, begins. */
static char *row_of(const struct buffer *b, int row) {
  return b->data + (size_t)(row % b->ring) * (size_t)b->w * b->stride;
}

struct job {
  const struct partition *partition;
  const struct step *step;
  int h, w;         /* of the step's output */
  int first, last;  /* pixels to do, of all images */
  int tile, chunks; /* pixels of a tile, parts of the work */
  bool rows;        /* a run must not cross the end of a row */
  struct image input;
  struct instruction program[MAX_INSTRUCTIONS + 1];
};

static void start_job(struct job *job, const struct partition *partition, const struct step *step) {
  const struct plan *plan = partition->plan;
  for (int i = 0; i < step->count; i++) {
    const struct planned *from = &step->program[i];
    struct instruction *to = &job->program[i];
    *to = (struct instruction){.code = from->code, .low = from->low, .high = from->high, .constant = from->constant,
                               .tile = from->tile};
    if (from->buffer < 0) continue;
    const struct buffer *b = &plan->buffers[from->buffer];
    if (from->code == OP_STORE_SIGNS) {
      to->data = (char *)image_of(b).data + from->offset / UNIT * 4;
      to->stride = (ptrdiff_t)b->pixel_words * 4;
      job->rows = job->rows || b->top || b->left || b->bottom || b->right;
    } else {
      to->data = b->data + (from->period ? 0 : (size_t)from->offset * element_size(b));
      to->stride = (ptrdiff_t)b->stride;
      job->rows = job->rows || b->ring < b->n * b->h;
    }
  }
}

/* Runs the program for some pixels; `first` holds data pointers of pixel 0 and is changed. */
static void run_pixels(const struct job *job, int pixel, int count, const char *scratch, ptrdiff_t scratch_stride,
                       const float *const *border) {
  const struct step *step = job->step;
  const struct plan *plan = job->partition->plan;
  const struct kernels *kernels = job->partition->options->kernels;
  struct instruction program[MAX_INSTRUCTIONS];
  while (count > 0) {
    const int x = pixel % job->w, y = pixel / job->w % job->h, n = pixel / job->w / job->h;
    const int run = job->rows && job->w - x < count ? job->w - x : count;
    memcpy(program, job->program, (size_t)step->count * sizeof *program);
    for (int i = 0; i < step->count; i++) {
      struct instruction *op = &program[i];
      if (step->program[i].buffer < 0) continue;
      const struct buffer *b = &plan->buffers[step->program[i].buffer];
      if (op->code == OP_STORE_SIGNS && job->rows) {
        const struct image image = image_of(b);
        op->data += (n * image.plane + y * image.row) * 4 + x * op->stride;
      } else if (op->code != OP_STORE_SIGNS && b->ring < b->n * b->h) {
        op->data += (ptrdiff_t)((n * job->h + y) % b->ring * job->w + x) * op->stride;
      } else {
        op->data += pixel * op->stride;
      }
    }
    if (scratch) {
      program[0].data = (char *)(uintptr_t)scratch;
      program[0].stride = scratch_stride;
      program[0].border = border;
      scratch += run * scratch_stride;
      if (border) border += run;
    }
    kernels->run(program, step->count, step->channels, run);
    pixel += run;
    count -= run;
  }
}

static void compact_groups(const struct convolution *conv, int32_t *acc, size_t stride, int pixels) {
  const size_t width = (size_t)conv->gemm.vectors * (size_t)conv->kernels->lanes;
  const size_t used = (size_t)(conv->channels_out / conv->gemm.groups);
  for (int p = 0; p < pixels; p++)
    for (size_t g = 1; g < (size_t)conv->gemm.groups; g++)
      memmove(acc + (size_t)p * stride + g * used, acc + (size_t)p * stride + g * width, used * sizeof *acc);
}

/* The bits that differ, also in the taps that are left out. */
static void accumulate(const struct convolution *conv, const uint32_t *const *pixels, int32_t *acc, int count) {
  const struct gemm *gemm = &conv->gemm;
  const int used = gemm->vectors * conv->kernels->lanes * gemm->groups;
  if (gemm->taps)
    conv->kernels->accumulate(gemm, conv->tile_pixels, pixels, acc, conv->acc_stride);
  else
    memset(acc, 0, (size_t)conv->tile_pixels * conv->acc_stride * sizeof *acc);
  if (gemm->groups > 1 && used != conv->channels_out) compact_groups(conv, acc, conv->acc_stride, count);
  for (int p = 0; conv->missed && p < count; p++)
    for (int c = 0; c < conv->channels_out; c++) acc[(size_t)p * conv->acc_stride + (size_t)c] += conv->missed[c];
}

static void run_convolution(const struct job *job, int thread, int first, int last) {
  const struct step *step = job->step;
  const struct convolution *conv = step->convolution;
  const struct buffer *source = &job->partition->plan->buffers[step->source];
  /* Where there is one window only, the stride may be beyond everything. */
  const ptrdiff_t stride_y = job->h > 1 ? conv->window.stride_height * job->input.row : 0;
  const ptrdiff_t stride_x = job->w > 1 ? (ptrdiff_t)conv->window.stride_width * source->pixel_words : 0;
  const size_t width = (size_t)round_up(conv->period, UNIT);
  int32_t *acc = (int32_t *)(void *)(job->partition->scratch + (size_t)thread * (size_t)job->partition->scratch_bytes);
  int pixel = job->first + first * job->tile;
  int x = pixel % job->w, y = pixel / job->w % job->h, n = pixel / job->w / job->h;
  for (int t = first; t < last; t++) {
    const uint32_t *pointers[MAX_TILE];
    const float *borders[MAX_TILE];
    const int count = job->last - pixel < job->tile ? job->last - pixel : job->tile;
    bool border = false;
    for (int p = 0; p < job->tile; p++) {
      if (p >= count) { /* the rest of an incomplete tile repeats its last pixel, for nobody */
        pointers[p] = pointers[p - 1];
        continue;
      }
      pointers[p] = job->input.data + n * job->input.plane + y * stride_y + x * stride_x;
      borders[p] = NULL;
      if (conv->borders && (conv->row_class[y] || conv->column_class[x])) {
        borders[p] = conv->borders +
                     (size_t)(conv->row_class[y] * conv->column_classes + conv->column_class[x]) * width;
        border = true;
      }
      if (++x == job->w) {
        x = 0;
        if (++y == job->h) {
          y = 0;
          n++;
        }
      }
    }
    accumulate(conv, pointers, acc, count);
    for (int p = 0; p < count; p++)
      for (int c = conv->channels_out; c < conv->period; c += conv->channels_out)
        memcpy(acc + (size_t)p * conv->acc_stride + c, acc + (size_t)p * conv->acc_stride,
               (size_t)conv->channels_out * sizeof *acc);
    run_pixels(job, pixel, count, (const char *)acc, (ptrdiff_t)(conv->acc_stride * sizeof *acc),
               border ? borders : NULL);
    pixel += count;
  }
}

static void run_pool(const struct job *job, int first, int last) {
  const struct step *step = job->step;
  const struct buffer *source = &job->partition->plan->buffers[step->source];
  const struct buffer *target = &job->partition->plan->buffers[step->target];
  const struct window *w = &step->window;
  const ptrdiff_t pixel = (ptrdiff_t)source->stride, target_pixel = (ptrdiff_t)target->stride;
  int size, top, left;
  output_size(source->h, w->height, w->stride_height, 1, w->same, &size, &top);
  output_size(source->w, w->width, w->stride_width, 1, w->same, &size, &left);
  for (int row = first; row < last; row++) {
    const int n = row / target->h, y = row % target->h;
    for (int x = 0; x < target->w;) {
      /* The pixels whose windows lie inside are one run, the others a run each. */
      const int from = x * w->stride_width - left;
      int run = 1;
      if (from >= 0 && from + w->width <= source->w) {
        run = (source->w - w->width - from) / w->stride_width + 1;
        if (run > target->w - x) run = target->w - x;
      }
      /* TFLite begins with 0 and with the lowest number, which tells in the signs of zeros and where there are NaNs. */
      struct instruction program[MAX_POOLED * MAX_POOLED + 3];
      const ptrdiff_t stride = run > 1 ? pixel * w->stride_width : 0;
      int pixels = 0, count = 0;
      for (int ky = 0; ky < w->height; ky++)
        for (int kx = 0; kx < w->width; kx++) {
          const int iy = y * w->stride_height - top + ky, ix = from + kx;
          if (iy < 0 || iy >= source->h || ix < 0 || ix >= source->w) continue;
          program[count++] = (struct instruction){
              .code = !pixels++ ? OP_LOAD : step->maximum ? OP_MAX_LOADED : OP_ADD_LOADED, .stride = stride,
              .data = row_of(source, n * source->h + iy) + ix * pixel};
          if (pixels == 1 && step->maximum)
            program[count++] = (struct instruction){.code = OP_AT_LEAST, .low = -FLT_MAX};
        }
      if (!step->maximum) program[count++] = (struct instruction){.code = OP_MEAN, .low = 1.0f / (float)pixels};
      program[count++] = (struct instruction){
          .code = OP_STORE, .data = row_of(target, row) + x * target_pixel, .stride = target_pixel};
      job->partition->options->kernels->run(program, count, step->channels, run);
      x += run;
    }
  }
}

/* The part of a window that lies inside an image. */
static struct range inside(int start, int length, int in) {
  return (struct range){start > 0 ? start : 0, length < in - start ? start + length : in};
}

static void run_binary_max_pool(const struct job *job, int first, int last) {
  const struct step *step = job->step;
  const struct buffer *source = &job->partition->plan->buffers[step->source];
  const struct buffer *target = &job->partition->plan->buffers[step->target];
  const struct window *w = &step->window;
  const struct image in = image_of(source), out = image_of(target);
  int size, top, left;
  output_size(source->h, w->height, w->stride_height, 1, w->same, &size, &top);
  output_size(source->w, w->width, w->stride_width, 1, w->same, &size, &left);
  for (int row = first; row < last; row++) {
    const int n = row / target->h, y = row % target->h;
    const struct range rows = inside(y * w->stride_height - top, w->height, source->h);
    for (int x = 0; x < target->w; x++) {
      const struct range columns = inside(x * w->stride_width - left, w->width, source->w);
      uint32_t *to = out.data + n * out.plane + y * out.row + (ptrdiff_t)x * target->pixel_words;
      for (int i = 0; i < target->pixel_words; i++) to[i] = UINT32_MAX;
      for (int iy = rows.first; iy < rows.end; iy++)
        for (int ix = columns.first; ix < columns.end; ix++) {
          const uint32_t *from = in.data + n * in.plane + iy * in.row + (ptrdiff_t)ix * source->pixel_words;
          for (int i = 0; i < target->pixel_words; i++) to[i] &= from[i];
        }
    }
  }
}

static void run_rows(const struct job *job, int first, int last) {
  const struct step *step = job->step;
  const struct buffer *source = &job->partition->plan->buffers[step->source];
  const struct buffer *target = &job->partition->plan->buffers[step->target];
  const size_t size = element_size(target);
  const struct image in = image_of(source);
  for (int row = first; row < last; row++)
    for (int x = 0; x < target->w; x++) {
      char *to = row_of(target, row) + (size_t)x * target->stride;
      if (step->kind == STEP_TILE) {
        const size_t bytes = (size_t)source->pixel_words * size;
        const char *from = row_of(source, row) + (size_t)x * source->stride;
        for (size_t c = 0; c < (size_t)step->channels * size; c += bytes) memcpy(to + c, from, bytes);
        continue;
      }
      const uint32_t *from = in.data + row / target->h * in.plane + row % target->h * in.row +
                             (ptrdiff_t)x * source->pixel_words;
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

/* Denormal numbers count as zero, as TFLite does around its own operators, also in the workers. */
static unsigned long long flush_denormals(void) {
#if defined(__x86_64__)
  const unsigned saved = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(saved | 0x8040);
  return saved;
#elif defined(__aarch64__)
  unsigned long long saved;
  __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
  __asm__ volatile("msr fpcr, %0" ::"r"(saved | 1ull << 24));
  return saved;
#else
  return 0;
#endif
}

static void restore_denormals(unsigned long long saved) {
#if defined(__x86_64__)
  __builtin_ia32_ldmxcsr((unsigned)saved);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" ::"r"(saved));
#else
  (void)saved;
#endif
}

/* Copies the pixels of a tensor to all those of a larger one that stand for them. */
static void run_broadcast(const struct job *job, int first, int last) {
  const struct buffer *source = &job->partition->plan->buffers[job->step->source];
  const struct buffer *target = &job->partition->plan->buffers[job->step->target];
  for (int row = first; row < last; row++)
    for (int x = 0; x < target->w; x++) {
      int index = row * target->w + x, from = 0, pixels = 1;
      for (int d = target->rank - 2; d >= 0; d--) {
        const int dim = d - target->rank + source->rank, size = dim < 0 ? 1 : source->dims[dim];
        if (size > 1) from += index % target->dims[d] * pixels;
        index /= target->dims[d];
        pixels *= size;
      }
      const float *values = (const float *)(const void *)(row_of(source, from / source->w) +
                                                          (size_t)(from % source->w) * source->stride);
      float *to = (float *)(void *)(row_of(target, row) + (size_t)x * target->stride);
      for (int c = 0; c < job->step->channels; c++) to[c] = values[source->pixel_words > 1 ? c : 0];
    }
}

static void run_chunk(void *argument, int thread, int chunk) {
  const struct job *job = argument;
  const unsigned long long saved = flush_denormals();
  const bool by_pixel = job->step->kind == STEP_CONVOLUTION || job->step->kind == STEP_ELEMENTWISE;
  const int64_t pixels = job->last - job->first;
  const int64_t units = by_pixel ? (pixels + job->tile - 1) / job->tile : pixels / job->w;
  const int row = by_pixel ? 0 : job->first / job->w;
  const int first = row + (int)(units * chunk / job->chunks), last = row + (int)(units * (chunk + 1) / job->chunks);
  switch (job->step->kind) {
    case STEP_CONVOLUTION:
      run_convolution(job, thread, first, last);
      break;
    case STEP_ELEMENTWISE: {
      const int start = job->first + first * job->tile, end = job->first + last * job->tile;
      run_pixels(job, start, (end < job->last ? end : job->last) - start, NULL, 0, NULL);
      break;
    }
    case STEP_POOL:
      run_pool(job, first, last);
      break;
    case STEP_BINARY_MAX_POOL:
      run_binary_max_pool(job, first, last);
      break;
    case STEP_DEQUANTIZE:
    case STEP_TILE:
      run_rows(job, first, last);
      break;
    case STEP_BROADCAST:
      run_broadcast(job, first, last);
      break;
  }
  restore_denormals(saved);
}

static void copy_padded(const struct buffer *source, const struct image *to) {
  const size_t bytes = (size_t)source->w * (size_t)source->pixel_words * 4;
  for (int n = 0; n < source->n; n++)
    for (int y = 0; y < source->h; y++)
      memcpy(to->data + n * to->plane + y * to->row,
             source->data + ((size_t)n * (size_t)source->h + (size_t)y) * bytes, bytes);
}

static void run_task(const struct partition *partition, const struct task *task) {
  const struct plan *plan = partition->plan;
  const struct step *step = &plan->steps[task->step];
  if (step->kind == STEP_ELEMENTWISE && step->count == 1) return; /* all it would do is done by a view */
  const struct buffer *source = &plan->buffers[step->source];
  struct job job = {.partition = partition, .step = step, .tile = PIXELS_OF_CHUNK};
  int n;
  output_images(plan, step, &n, &job.h, &job.w);
  start_job(&job, partition, step);
  if (step->kind == STEP_CONVOLUTION) {
    const struct convolution *conv = step->convolution;
    job.tile = conv->tile_pixels;
    job.program[0] = (struct instruction){.code = conv->clamped ? OP_CLAMPED : OP_ACCUMULATED, .low = conv->clamp_low,
                                          .high = conv->clamp_high, .constant = conv->shift, .scale = conv->scale,
                                          .tile = step->copies};
    struct buffer image = *source;
    if (conv->padded) {
      image.data = (char *)conv->padded;
      image.top = conv->rows.before;
      image.left = conv->columns.before;
      image.bottom = conv->rows.behind;
      image.right = conv->columns.behind;
    }
    job.input = image_of(&image);
    if (conv->padded && task->first == 0) copy_padded(source, &job.input);
    job.input.data += conv->rows.start * job.input.row + (ptrdiff_t)conv->columns.start * source->pixel_words;
  }
  job.first = task->first * job.w;
  job.last = task->last * job.w;
  const int pixels = job.last - job.first;
  if (pixels == 0) return;
  const int most = step->target >= 0 ? pixels / job.w : (pixels + job.tile - 1) / job.tile;
  job.chunks = partition->num_threads > 1 ? 4 * partition->num_threads : 1;
  if (job.chunks > most) job.chunks = most;
  run_parallel(partition->shared->threads, partition->num_threads, run_chunk, &job, job.chunks);
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

TfLiteStatus invoke_partition(TfLiteContext *context, struct partition *partition) {
  const struct plan *plan = partition->plan;
  for (int i = 0; i < plan->buffer_count; i++) {
    struct buffer *b = &plan->buffers[i];
    const TfLiteTensor *t = &context->tensors[b->tensor];
    if (!b->external) continue;
    b->data = t->data.data;
    bool same = t->dims && t->dims->size == b->rank && t->bytes >= (size_t)b->n * (size_t)b->h * (size_t)b->w *
                                                                     (size_t)b->pixel_words * element_size(b);
    for (int d = 0; same && d < b->rank; d++) same = t->dims->data[d] == b->dims[d];
    if (!same || (!b->data && t->bytes)) {
      context->ReportError(context, "larq-rep: tensor %d '%.60s' changed its shape after it was allocated.", b->tensor,
                           tensor_name(context, b->tensor));
      return kTfLiteError;
    }
  }
  for (int i = 0; i < plan->buffer_count; i++) {
    struct buffer *b = &plan->buffers[i];
    const struct buffer *whole = b;
    size_t channel = 0;
    for (; whole->view_of >= 0; whole = &plan->buffers[whole->view_of]) channel += (size_t)whole->view_channel;
    if (!whole->external) b->data = partition->memory + whole->offset;
    if (b != whole) b->data = (whole->external ? whole->data : b->data) + channel * element_size(b);
    b->stride = (size_t)whole->pixel_words * element_size(b);
  }
  const bool profile = partition->options->profile;
  for (int i = 0; i < plan->task_count; i++) {
    const double start = profile ? seconds() : 0;
    run_task(partition, &plan->tasks[i]);
    if (profile) plan->steps[plan->tasks[i].step].now += seconds() - start;
  }
  if (partition->num_threads > 1) rest_threads(partition->shared->threads);
  for (int s = 0; profile && s < plan->step_count; s++) {
    struct step *step = &plan->steps[s];
    step->seconds += step->now;
    if (!partition->invocations || step->now < step->best) step->best = step->now;
    step->now = 0;
  }
  partition->invocations++;
  return kTfLiteOk;
}

/* Bytes of tensors that a step reads and writes; those of the sums stay in the cache. */
static double moved_bytes(const struct plan *plan, const struct step *step) {
  const struct buffer *source = &plan->buffers[step->source];
  int n, h, w;
  output_images(plan, step, &n, &h, &w);
  const double pixels = (double)n * h * w;
  double bytes = 0;
  if (step->kind != STEP_ELEMENTWISE)
    bytes += (double)source->n * source->h * source->w * source->pixel_words * (double)element_size(source);
  if (step->target >= 0)
    bytes += pixels * plan->buffers[step->target].pixel_words * (double)element_size(&plan->buffers[step->target]);
  for (int i = 0; i < step->count; i++) {
    const struct planned *op = &step->program[i];
    if (op->buffer < 0) continue;
    if (op->code == OP_STORE_SIGNS)
      bytes += pixels * (step->channels + 7) / 8;
    else
      bytes += pixels * (op->period ? op->period : step->channels) * (double)element_size(&plan->buffers[op->buffer]);
  }
  return bytes;
}

static double macs(const struct plan *plan, const struct step *step) {
  if (step->kind != STEP_CONVOLUTION) return 0;
  const struct convolution *conv = step->convolution;
  int n, h, w;
  output_images(plan, step, &n, &h, &w);
  return (double)n * h * w * conv->channels_out * conv->window.height * conv->window.width * conv->channels_in /
         conv->gemm.groups;
}

void print_profile(const struct partition *partition) {
  const struct plan *plan = partition->plan;
  if (!partition->invocations) return;
  size_t packed = 0;
  size_t memory = (size_t)partition->memory_bytes + (size_t)partition->scratch_bytes * (size_t)partition->num_threads;
  for (int s = 0; s < plan->step_count; s++) {
    const struct step *step = &plan->steps[s];
    if (step->convolution) packed += packed_bytes(step->convolution);
    if (step->convolution) memory += constant_bytes(step->convolution);
    for (int i = 0; i < step->count; i++)
      if (step->program[i].constant) memory += (size_t)round_up(step->channels, UNIT) * sizeof(float);
  }
  fprintf(stderr,
          "larq-rep profile: {\"implementation\": \"%s\", \"threads\": %d, \"invocations\": %ld, "
          "\"packed_bytes\": %zu, \"memory_bytes\": %zu, \"steps\": [",
          partition->options->kernels->name, partition->num_threads, partition->invocations, packed, memory);
  for (int s = 0; s < plan->step_count; s++) {
    const struct step *step = &plan->steps[s];
    fprintf(stderr, "%s{\"operator\": %d, \"name\": \"%s\", \"ms\": %.5f, \"best_ms\": %.5f, \"macs\": %.0f, \"bytes\": %.0f}", s ? ", " : "", step->op->node, step->name,
            1e3 * step->seconds / (double)partition->invocations, 1e3 * step->best, macs(plan, step), moved_bytes(plan, step));
  }
  fprintf(stderr, "]}\n");
}
