#include "profile.h"

#include <stdio.h>
#include <time.h>

#include "buffers.h"
#include "convolution.h"

double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void add_times(struct partition *partition) {
  for (int s = 0; s < partition->plan->step_count; s++) {
    struct step *step = &partition->plan->steps[s];
    step->seconds += step->now;
    if (!partition->invocations || step->now < step->best) step->best = step->now;
    step->now = 0;
  }
}

/* Bytes of tensors that a step reads and writes; the sums stay in the cache. */
static double moved_bytes(const struct plan *plan, const struct step *step) {
  const struct buffer *source = &plan->buffers[step->source];
  int n, h, w;
  output_images(plan, step, &n, &h, &w);
  const double pixels = (double)n * h * w;
  double bytes = 0;
  if (is_nothing(step)) return 0;
  for (const struct convolution *conv = step->convolution; conv; conv = conv->next) {
    const struct buffer *image = &plan->buffers[conv->source];
    bytes += 4.0 * image->n * image->h * image->w * image->pixel_words;
  }
  if (step->kind != STEP_ELEMENTWISE && step->kind != STEP_CONVOLUTION)
    bytes += (double)source->n * source->h * source->w * source->pixel_words * (double)element_size(source);
  if (step->target >= 0)
    bytes += pixels * plan->buffers[step->target].pixel_words * (double)element_size(&plan->buffers[step->target]);
  for (int i = 0; i < step->count; i++) {
    const struct planned *op = &step->program[i];
    if (op->buffer < 0) continue;
    if (is_packed(op->code))
      bytes += pixels * (step->channels + 7) / 8;
    else
      bytes += pixels * (op->period ? op->period : step->channels) * (double)element_size(&plan->buffers[op->buffer]);
  }
  return bytes;
}

static double macs(const struct plan *plan, const struct step *step) {
  int n, h, w;
  double sum = 0;
  output_images(plan, step, &n, &h, &w);
  for (const struct convolution *conv = step->convolution; conv; conv = conv->next)
    sum += (double)n * h * w * conv->channels_out * conv->window.height * conv->window.width * conv->channels_in /
           conv->gemm.groups;
  return sum;
}

void print_profile(const struct partition *partition) {
  const struct plan *plan = partition->plan;
  if (!partition->invocations) return;
  size_t packed = 0;
  size_t memory = (size_t)partition->memory_bytes + (size_t)partition->scratch_bytes * (size_t)partition->num_threads;
  for (int s = 0; s < plan->step_count; s++) {
    const struct step *step = &plan->steps[s];
    for (const struct convolution *conv = step->convolution; conv; conv = conv->next) {
      packed += packed_bytes(conv);
      memory += constant_bytes(conv);
    }
    for (int i = 0; i < step->count; i++)
      if (step->program[i].constant) memory += (size_t)round_up(step->channels, UNIT) * sizeof(float);
  }
  fprintf(stderr,
          "larq-rep profile: {\"implementation\": \"%s\", \"threads\": %d, \"invocations\": %ld, "
          "\"cache_bytes\": %lld, \"packed_bytes\": %zu, \"memory_bytes\": %zu, \"steps\": [",
          partition->options->kernels->name, partition->num_threads, partition->invocations,
          (long long)partition->cache_bytes, packed, memory);
  for (int s = 0; s < plan->step_count; s++) {
    const struct step *step = &plan->steps[s];
    fprintf(stderr,
            "%s{\"operator\": %d, \"name\": \"%s\", \"parts\": %d, \"ms\": %.5f, \"best_ms\": %.5f, \"macs\": %.0f, "
            "\"bytes\": %.0f}",
            s ? ", " : "", step->node->index, step->name, step->fewest_parts,
            1e3 * step->seconds / (double)partition->invocations, 1e3 * step->best, macs(plan, step),
            moved_bytes(plan, step));
  }
  fprintf(stderr, "]}\n");
}
