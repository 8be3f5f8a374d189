#include "sums.h"

#include "convolution.h"
#include "memory.h"
#include "shapes.h"
#include "tensors.h"
#include "weights.h"

/* The position of the only reader of a tensor, or -1. */
static int only_reader(const struct planner *p, int tensor) {
  const int start = p->reader_start[tensor];
  return p->is_output[tensor] || p->reader_start[tensor + 1] != start + 1 ? -1 : p->readers[start];
}

/* The position of a convolution that makes a tensor for one reader, or -1. */
static int convolution_of(const struct planner *p, int tensor) {
  const int position = p->producer[tensor];
  if (position < 0 || only_reader(p, tensor) < 0) return -1;
  const struct node *node = &p->nodes[position];
  const bool plain = node->kind == NODE_BCONV && node->activation == kTfLiteActNone &&
                     p->context->tensors[tensor].type == kTfLiteFloat32;
  return plain ? position : -1;
}

static int pixels_of_tile(const struct planner *p, int position) {
  const struct node *node = &p->nodes[position];
  const int *filter = p->context->tensors[node->inputs->data[1]].dims->data;
  const int groups = round_up(node->channels_in, 32) / 32 / filter[3], outputs = filter[0] / groups;
  return kernels_of_groups(p->options->kernels, outputs, filter[3], (int64_t)filter[1] * filter[2])->tile;
}

/* What an addition adds, if one of its operands is a convolution. */
static struct summand summand_of(const struct planner *p, int position) {
  struct summand summand = {.before = -1};
  const struct node *node = &p->nodes[position];
  if (node->kind != NODE_ADD) return summand;
  const int *in = node->inputs->data;
  for (int i = 0; i < 2; i++)
    if (in[i] == in[1 - i] || is_constant(p->context, in[i]) || is_broadcast(p->shapes, node, in[i])) return summand;
  const int first = convolution_of(p, in[0]), second = convolution_of(p, in[1]);
  if (first < 0 && second < 0) return summand;
  summand.side = second >= 0;
  summand.count = 1;
  const int other = in[1 - summand.side], before = p->producer[other];
  const int pixels = pixels_of_tile(p, second >= 0 ? second : first);
  if (first >= 0 && second >= 0) {
    if (pixels_of_tile(p, first) == pixels) summand.count = 2;
  } else if (before >= 0 && only_reader(p, other) >= 0) {
    const struct summand *sum = &p->summands[before];
    if (sum->count > 0 && sum->count < MAX_SUMMED &&
        pixels_of_tile(p, p->producer[p->nodes[before].inputs->data[sum->side]]) == pixels) {
      summand.before = before;
      summand.count = sum->count + 1;
    }
  }
  return summand;
}

struct sum sum_of(const struct planner *p, int addition) {
  struct sum sum = {.count = p->summands[addition].count, .loaded = -1};
  for (int i = sum.count - 1; i >= 0; i--) {
    const TfLiteIntArray *in = p->nodes[addition].inputs;
    const int side = p->summands[addition].side, other = in->data[1 - side];
    sum.convolutions[i] = p->producer[in->data[side]];
    sum.additions[i] = addition;
    if (i == 1 && p->summands[addition].before < 0) {
      sum.convolutions[0] = p->producer[other];
      sum.additions[0] = -1;
      break;
    }
    if (i == 0) sum.loaded = other;
    addition = p->summands[addition].before;
  }
  return sum;
}

void hold_sum(struct planner *p, const struct sum *sum, bool held) {
  for (int i = 0; i < sum->count; i++) {
    p->summands[sum->convolutions[i]].held = held;
    if (sum->additions[i] >= 0) p->summands[sum->additions[i]].held = held;
  }
}

bool find_sums(struct planner *p) {
  const int count = p->plan->node_count;
  p->summands = allocate((uint64_t)count, sizeof *p->summands);
  if (!p->summands) return false;
  for (int i = 0; i < count; i++) {
    p->summands[i] = summand_of(p, i);
    p->summands[i].sum = -1;
    if (p->summands[i].before >= 0) p->summands[p->summands[i].before].goes_on = true;
  }
  for (int i = 0; i < count; i++) {
    if (p->summands[i].goes_on || p->summands[i].count < 2) continue;
    const struct sum sum = sum_of(p, i);
    int last = 0;
    for (int j = 0; j < sum.count; j++) last = sum.convolutions[j] > last ? sum.convolutions[j] : last;
    p->summands[last].sum = i;
    hold_sum(p, &sum, true);
  }
  return true;
}
