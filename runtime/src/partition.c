#include "partition.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "buffers.h"
#include "cache.h"
#include "convolution.h"
#include "memory.h"
#include "plan.h"
#include "profile.h"
#include "run.h"
#include "schedule.h"
#include "shapes.h"
#include "steps.h"
#include "tensors.h"
#include "threads.h"

static TfLiteStatus refuse_step(TfLiteContext *context, const struct plan *plan, const struct step *step,
                                const char *why) {
  const struct buffer *source = &plan->buffers[step->source];
  const struct shape *shape = &plan->shapes[source->shaped_like];
  char text[SHAPE_TEXT];
  context->ReportError(context, "larq-rep: operator %d (%s), tensor %d '%.60s' of shape %s: %s.", step->node->index,
                       step->name, source->tensor, tensor_name(context, source->tensor), shape_text(shape, text), why);
  return kTfLiteError;
}

static uint64_t scratch_bytes(const struct convolution *conv) {
  return ((uint64_t)conv->grain * conv->acc_stride * sizeof(int32_t) + 127) / 64 * 64;
}

/* Finds all shapes from those of the partition's inputs. The steps are made anew if they were for other channels, or
 * if other operands must be broadcast. */
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
    uint64_t bytes = 0;
    for (struct convolution *conv = step->convolution; conv; conv = conv->next) {
      conv->scratch = (size_t)bytes;
      bytes += scratch_bytes(conv);
      if (!prepare_convolution(conv, &plan->buffers[conv->source], partition->shared->threads, partition->num_threads))
        return refuse_step(context, plan, step,
                           "no memory for its weights and borders, or an image of more than 2^31 words");
    }
    if (bytes > partition->scratch_bytes) partition->scratch_bytes = bytes;
  }
  return kTfLiteOk;
}

static TfLiteStatus resize_outputs(TfLiteContext *context, const struct plan *plan) {
  for (int i = 0; i < plan->buffer_count; i++) {
    const struct buffer *b = &plan->buffers[i];
    if (!b->external || plan->producer[b->tensor] < 0) continue;
    /* The runtime takes over the array and frees it. */
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

/* Allocates the tensors that only the partition sees, and the threads' sums. */
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
  return refuse_step(context, plan, largest, why);
}

TfLiteStatus prepare_partition(TfLiteContext *context, struct partition *partition) {
  struct plan *plan = partition->plan;
  partition->num_threads = partition->options->num_threads        ? partition->options->num_threads
                           : context->recommended_num_threads > 0 ? context->recommended_num_threads
                                                                  : 1;
  if (partition->num_threads > MAX_THREADS) partition->num_threads = MAX_THREADS;
  if (prepare_shapes(context, plan, partition->options) != kTfLiteOk ||
      prepare_convolutions(context, partition) != kTfLiteOk || resize_outputs(context, plan) != kTfLiteOk)
    return kTfLiteError;
  const int kb = partition->options->cache_kb;
  partition->cache_bytes = kb ? (int64_t)kb << 10 : cache_bytes(partition->num_threads);
  if (!make_schedule(plan, partition->num_threads, partition->cache_bytes)) {
    context->ReportError(context, "larq-rep: no memory, or no order for the steps of the partition.");
    return kTfLiteError;
  }
  if (partition->num_threads > 1) rest_threads(partition->shared->threads);
  partition->memory_bytes = place_buffers(plan);
  return allocate_memory(context, partition);
}

TfLiteStatus invoke_partition(TfLiteContext *context, struct partition *partition) {
  struct plan *plan = partition->plan;
  const bool profile = partition->options->profile;
  if (bind_buffers(context, plan, partition->memory) != kTfLiteOk) return kTfLiteError;
  for (int i = 0; i < plan->task_count; i++) {
    const double start = profile ? seconds() : 0;
    run_task(partition, &plan->tasks[i]);
    if (profile) plan->steps[plan->tasks[i].step].now += seconds() - start;
  }
  if (partition->num_threads > 1) rest_threads(partition->shared->threads);
  if (profile) add_times(partition);
  partition->invocations++;
  return kTfLiteOk;
}
