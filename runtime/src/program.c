#include "program.h"

#include <string.h>

#include "convolution.h"

void start_program(struct job *job) {
  const struct step *step = job->step;
  for (int i = 0; i < step->count; i++) {
    const struct planned *from = &step->program[i];
    struct instruction *to = &job->program[i];
    *to = (struct instruction){.code = from->code,
                               .low = from->low,
                               .high = from->high,
                               .constant = from->constant,
                               .source_channels = from->source_channels};
    if (from->buffer < 0) continue;
    const struct buffer *b = &job->partition->plan->buffers[from->buffer];
    if (from->code == OP_STORE_SIGNS) {
      to->data = (char *)image_of(b).data + from->offset / UNIT * 4;
      to->stride = (ptrdiff_t)b->pixel_words * 4;
      job->by_row = job->by_row || b->top || b->left || b->bottom || b->right;
    } else {
      to->data = b->data + (from->period ? 0 : (size_t)from->offset * element_size(b));
      to->stride = (ptrdiff_t)b->stride;
      job->by_row = job->by_row || b->ring < b->n * b->h;
    }
  }
}

static void copy_padded(const struct buffer *source, const struct image *to) {
  const size_t bytes = (size_t)source->w * (size_t)source->pixel_words * 4;
  for (int n = 0; n < source->n; n++)
    for (int y = 0; y < source->h; y++)
      memcpy(to->data + n * to->plane + y * to->row, source->data + ((size_t)n * (size_t)source->h + (size_t)y) * bytes,
             bytes);
}

void start_convolution(struct job *job, const struct task *task) {
  const struct convolution *conv = job->step->convolution;
  const struct buffer *source = &job->partition->plan->buffers[job->step->source];
  job->grain = conv->tile_pixels;
  job->program[0] = (struct instruction){.code = conv->clamped ? OP_CLAMPED : OP_ACCUMULATED,
                                         .low = conv->clamp_low,
                                         .high = conv->clamp_high,
                                         .constant = conv->shift,
                                         .scale = conv->scale,
                                         .source_channels = job->step->copies};
  struct buffer image = *source;
  if (conv->padded) {
    image.data = (char *)conv->padded;
    image.top = conv->rows.before;
    image.left = conv->columns.before;
    image.bottom = conv->rows.behind;
    image.right = conv->columns.behind;
  }
  job->input = image_of(&image);
  if (conv->padded && task->rows.first == 0) copy_padded(source, &job->input);
  job->input.data += conv->rows.start * job->input.row + (ptrdiff_t)conv->columns.start * source->pixel_words;
}

void run_program(const struct job *job, int pixel, int count, const char *scratch, ptrdiff_t scratch_stride,
                 const float *const *border) {
  const struct step *step = job->step;
  const struct plan *plan = job->partition->plan;
  const struct kernels *kernels = job->partition->options->kernels;
  struct instruction program[MAX_INSTRUCTIONS];
  while (count > 0) {
    const int x = pixel % job->w, y = pixel / job->w % job->h, n = pixel / job->w / job->h;
    const int run = job->by_row && job->w - x < count ? job->w - x : count;
    memcpy(program, job->program, (size_t)step->count * sizeof *program);
    for (int i = 0; i < step->count; i++) {
      struct instruction *op = &program[i];
      if (step->program[i].buffer < 0) continue;
      const struct buffer *b = &plan->buffers[step->program[i].buffer];
      if (op->code == OP_STORE_SIGNS && job->by_row) {
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

/* The bits that differ, including those in the taps that are left out. */
static void accumulate(const struct convolution *conv, const uint32_t *const *pixels, int32_t *acc, int count) {
  const struct gemm *gemm = &conv->gemm;
  const int used = gemm->vectors * conv->kernels->lanes * gemm->groups;
  const int rest = conv->kernels->tile_rest;
  if (gemm->taps)
    conv->kernels->accumulate(gemm, count <= rest ? rest : conv->tile_pixels, pixels, acc, conv->acc_stride);
  else
    memset(acc, 0, (size_t)conv->tile_pixels * conv->acc_stride * sizeof *acc);
  if (gemm->groups > 1 && used != conv->channels_out) compact_groups(conv, acc, conv->acc_stride, count);
  for (int p = 0; conv->missed && p < count; p++)
    for (int c = 0; c < conv->channels_out; c++) acc[(size_t)p * conv->acc_stride + (size_t)c] += conv->missed[c];
}

void run_convolution(const struct job *job, int thread, struct range tiles) {
  const struct step *step = job->step;
  const struct convolution *conv = step->convolution;
  const struct buffer *source = &job->partition->plan->buffers[step->source];
  /* If there is only one window, the stride may be out of range. */
  const ptrdiff_t stride_y = job->h > 1 ? conv->window.stride_height * job->input.row : 0;
  const ptrdiff_t stride_x = job->w > 1 ? (ptrdiff_t)conv->window.stride_width * source->pixel_words : 0;
  const size_t width = (size_t)round_up(conv->period, UNIT);
  int32_t *acc = (int32_t *)(void *)(job->partition->scratch + (size_t)thread * (size_t)job->partition->scratch_bytes);
  int pixel = job->pixels.first + tiles.first * job->grain;
  int x = pixel % job->w, y = pixel / job->w % job->h, n = pixel / job->w / job->h;
  for (int t = tiles.first; t < tiles.end; t++) {
    const uint32_t *pointers[MAX_TILE];
    const float *borders[MAX_TILE];
    const int count = job->pixels.end - pixel < job->grain ? job->pixels.end - pixel : job->grain;
    bool border = false;
    for (int p = 0; p < job->grain; p++) {
      if (p >= count) { /* the rest of an incomplete tile repeats its last pixel; the result is ignored */
        pointers[p] = pointers[p - 1];
        continue;
      }
      pointers[p] = job->input.data + n * job->input.plane + y * stride_y + x * stride_x;
      borders[p] = NULL;
      if (conv->borders && (conv->row_class[y] || conv->column_class[x])) {
        borders[p] =
            conv->borders + (size_t)(conv->row_class[y] * conv->column_classes + conv->column_class[x]) * width;
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
    run_program(job, pixel, count, (const char *)acc, (ptrdiff_t)(conv->acc_stride * sizeof *acc),
                border ? borders : NULL);
    pixel += count;
  }
}
