#include "program.h"

#include <string.h>

#include "convolution.h"

void start_program(struct job *job) {
  const struct step *step = job->step;
  job->channels = step->channels;
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
    if (is_packed(from->code)) {
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

static bool is_sum(enum opcode code) {
  return code == OP_ACCUMULATED || code == OP_CLAMPED || code == OP_ADD_ACCUMULATED;
}

void start_convolutions(struct job *job, const struct task *task) {
  const struct convolution *conv = job->step->convolution;
  job->grain = conv->grain;
  int number = 0;
  for (struct instruction *op = job->program; conv; op++) {
    if (!is_sum(op->code)) continue;
    if (op == job->program) op->code = code_of_results(conv);
    op->low = conv->clamp_low;
    op->high = conv->clamp_high;
    op->constant = conv->shift;
    op->scale = conv->scale;
    op->source_channels = job->step->copies;
    op->data = job->partition->scratch + conv->scratch;
    op->stride = (ptrdiff_t)(conv->acc_stride * sizeof(int32_t));
    const struct buffer *source = &job->partition->plan->buffers[conv->source];
    struct buffer image = *source;
    if (conv->padded) {
      image.data = (char *)conv->padded;
      image.top = conv->rows.before;
      image.left = conv->columns.before;
      image.bottom = conv->rows.behind;
      image.right = conv->columns.behind;
    }
    struct image *input = &job->inputs[number++];
    *input = image_of(&image);
    if (conv->padded && task->rows.first == 0) copy_padded(source, input);
    input->data += conv->rows.start * input->row + (ptrdiff_t)conv->columns.start * source->pixel_words;
    conv = conv->next;
  }
}

void start_cursor(struct cursor *cursor, const struct job *job) {
  const struct step *step = job->step;
  cursor->job = job;
  cursor->row = -1;
  cursor->memory_count = cursor->sum_count = 0;
  memcpy(cursor->program, job->program, (size_t)step->count * sizeof *cursor->program);
  for (int i = 0; i < step->count; i++) {
    cursor->start[i] = job->program[i].data;
    if (step->program[i].buffer >= 0) cursor->memory[cursor->memory_count++] = i;
    if (is_sum(job->program[i].code)) cursor->sums[cursor->sum_count++] = i;
  }
}

static void move_to_row(struct cursor *cursor, int row) {
  const struct job *job = cursor->job;
  cursor->row = row;
  for (int i = 0; i < cursor->memory_count; i++) {
    const int index = cursor->memory[i];
    const struct instruction *op = &job->program[index];
    const struct buffer *b = &job->partition->plan->buffers[job->step->program[index].buffer];
    ptrdiff_t offset = (ptrdiff_t)(row % (b->bits ? b->n * b->h : b->ring)) * job->w * op->stride;
    if (b->bits) {
      const struct image image = image_of(b);
      offset = (row / job->h * image.plane + row % job->h * image.row) * 4;
    }
    cursor->start[index] = op->data + offset;
  }
}

void run_program(struct cursor *cursor, int pixel, int count, const struct tile *tile) {
  const struct job *job = cursor->job;
  struct instruction *program = cursor->program;
  for (int done = 0; done < count;) {
    int first = pixel, run = count - done;
    if (job->by_row) {
      const int row = pixel / job->w;
      first -= row * job->w;
      if (job->w - first < run) run = job->w - first;
      if (row != cursor->row) move_to_row(cursor, row);
    }
    for (int i = 0; i < cursor->memory_count; i++) {
      const int index = cursor->memory[i];
      program[index].data = cursor->start[index] + first * program[index].stride;
    }
    for (int number = 0; number < cursor->sum_count; number++) {
      struct instruction *op = &program[cursor->sums[number]];
      op->data = cursor->start[cursor->sums[number]] + tile->scratch + done * op->stride;
      op->border = tile->bordered[number] ? tile->borders[number] + done : NULL;
    }
    for (int i = 0; i < job->step->part_count; i++) {
      const struct part *part = &job->step->parts[i];
      part->run(program + part->first, part->count, job->channels, run);
    }
    pixel += run;
    done += run;
  }
}

static void compact_groups(const struct convolution *conv, int32_t *acc, size_t stride, int pixels) {
  const size_t width = (size_t)conv->gemm.vectors * (size_t)conv->kernels->lanes;
  const size_t used = (size_t)(conv->channels_out / conv->gemm.groups);
  for (int p = 0; p < pixels; p++)
    for (size_t g = 1; g < (size_t)conv->gemm.groups; g++)
      memmove(acc + (size_t)p * stride + g * used, acc + (size_t)p * stride + g * width, used * sizeof *acc);
}

/* The bits that differ, including those in the taps that are left out, for some outputs. */
static void accumulate(const struct convolution *conv, struct range outputs, const uint32_t *const *pixels,
                       int32_t *acc, int count) {
  struct gemm gemm = conv->gemm;
  const int lanes = conv->kernels->lanes, used = gemm.vectors * lanes * gemm.groups;
  if (length(outputs) < conv->channels_out) {
    gemm.vectors = (length(outputs) + lanes - 1) / lanes;
    gemm.weights += (size_t)(outputs.first / lanes) * gemm.vector_words;
  }
  const int rest = conv->kernels->tile_rest;
  if (gemm.taps)
    conv->kernels->accumulate(&gemm, count <= rest ? rest : conv->tile_pixels, pixels, acc + outputs.first,
                              conv->acc_stride);
  else
    for (size_t i = 0; i < (size_t)conv->tile_pixels * conv->acc_stride; i++) acc[i] = SUM_ZERO;
  if (gemm.groups > 1 && used != conv->channels_out) compact_groups(conv, acc, conv->acc_stride, count);
  for (int p = 0; conv->missed && p < count; p++)
    for (int c = outputs.first; c < outputs.end; c++) acc[(size_t)p * conv->acc_stride + (size_t)c] += conv->missed[c];
}

/* The sums of one convolution for a tile's pixels and some of its outputs, and what they miss at the image's border. */
static void sum_tile(const struct job *job, const struct convolution *conv, int number, struct range outputs, int count,
                     struct tile *tile) {
  const struct image *input = &job->inputs[number];
  /* If there is only one window, the stride may be out of range. */
  const ptrdiff_t stride_y = job->h > 1 ? conv->window.stride_height * input->row : 0;
  const ptrdiff_t words = job->partition->plan->buffers[conv->source].pixel_words;
  const ptrdiff_t stride_x = job->w > 1 ? conv->window.stride_width * words : 0;
  const size_t width = (size_t)round_up(conv->period, UNIT);
  const int skip = job->step->copies ? 0 : outputs.first; /* copies count their channels from the first one */
  int32_t *acc = (int32_t *)(void *)(job->partition->scratch + tile->scratch + conv->scratch);
  const uint32_t *pointers[MAX_TILE];
  int x = tile->x, y = tile->y, n = tile->n;
  tile->bordered[number] = false;
  for (int p = 0; p < job->grain; p++) {
    if (p >= count) { /* the rest of an incomplete tile repeats its last pixel; the result is ignored */
      pointers[p] = pointers[p - 1];
      continue;
    }
    pointers[p] = input->data + n * input->plane + y * stride_y + x * stride_x;
    tile->borders[number][p] = NULL;
    if (conv->borders && (conv->row_class[y] || conv->column_class[x])) {
      tile->borders[number][p] =
          conv->borders + (size_t)(conv->row_class[y] * conv->column_classes + conv->column_class[x]) * width + skip;
      tile->bordered[number] = true;
    }
    if (++x == job->w) {
      x = 0;
      if (++y == job->h) {
        y = 0;
        n++;
      }
    }
  }
  for (int done = 0; done < count; done += conv->tile_pixels)
    accumulate(conv, outputs, pointers + done, acc + (size_t)done * conv->acc_stride,
               count - done < conv->tile_pixels ? count - done : conv->tile_pixels);
  for (int p = 0; p < count; p++)
    for (int c = conv->channels_out; c < conv->period; c += conv->channels_out)
      memcpy(acc + (size_t)p * conv->acc_stride + c, acc + (size_t)p * conv->acc_stride,
             (size_t)conv->channels_out * sizeof *acc);
}

/* The job for some channels of its program, from a whole unit on. */
static struct job part_of(const struct job *job, struct range channels) {
  struct job part = *job;
  part.channels = length(channels);
  for (int i = 0; i < job->step->count; i++) {
    struct instruction *op = &part.program[i];
    const int buffer = job->step->program[i].buffer;
    if (op->source_channels) {
      op->source_channels += channels.first / UNIT;
      continue;
    }
    if (op->constant) op->constant += channels.first;
    if (op->scale) op->scale += channels.first;
    if (is_sum(op->code)) op->data += (size_t)channels.first * sizeof(int32_t);
    if (buffer < 0) continue;
    op->data += is_packed(op->code) ? (size_t)(channels.first / UNIT) * 4
                                    : (size_t)channels.first * element_size(&job->partition->plan->buffers[buffer]);
  }
  return part;
}

void run_convolution(const struct job *job, int thread, struct range tiles, int block) {
  const struct convolution *conv = job->step->convolution;
  const int first = block * job->block, end = first + job->block, start = job->pixels.first + tiles.first * job->grain;
  const struct range outputs = {first, end < conv->channels_out ? end : conv->channels_out};
  struct tile tile = {.x = start % job->w, .y = start / job->w % job->h, .n = start / job->w / job->h};
  tile.scratch = (ptrdiff_t)thread * (ptrdiff_t)job->partition->scratch_bytes;
  struct cursor cursor;
  start_cursor(&cursor, job);
  for (int t = tiles.first; t < tiles.end; t++) {
    const int pixel = job->pixels.first + t * job->grain;
    const int count = job->pixels.end - pixel < job->grain ? job->pixels.end - pixel : job->grain;
    int number = 0;
    for (const struct convolution *c = conv; c; c = c->next) sum_tile(job, c, number++, outputs, count, &tile);
    if (job->blocks == 1) run_program(&cursor, pixel, count, &tile);
    for (int c = 0; job->blocks > 1 && c < job->step->channels; c += conv->channels_out) {
      const struct job part = part_of(job, (struct range){c + outputs.first, c + outputs.end});
      start_cursor(&cursor, &part);
      run_program(&cursor, pixel, count, &tile);
    }
    for (tile.x += count; tile.x >= job->w; tile.x -= job->w)
      if (++tile.y == job->h) {
        tile.y = 0;
        tile.n++;
      }
  }
}
