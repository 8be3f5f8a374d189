/* Programs: the instructions that a convolution or a pass over a tensor runs for its pixels. */
#ifndef LARQ_REP_PROGRAM_H
#define LARQ_REP_PROGRAM_H

#include "buffers.h"
#include "partition.h"

/* Some rows of a step's output that threads share. */
struct job {
  const struct partition *partition;
  const struct step *step;
  int h, w;            /* of the step's output */
  struct range pixels; /* to do, of all images */
  int grain;           /* pixels that one thread does together: a tile of a convolution */
  int blocks, block;   /* of a convolution's outputs, and how many are in one; each stays in the cache for its pixels */
  int pieces;          /* of the pixels; pieces times blocks are the parts of the work */
  int channels;        /* of the program */
  bool by_row;         /* neighbours in memory end with a row */
  struct image input;
  struct instruction program[MAX_INSTRUCTIONS + 1];
};

/* Gives the step's instructions their data of pixel 0. */
void start_program(struct job *job);

/* Gives a convolution its first instruction and its input; copies an external input into one with a border. */
void start_convolution(struct job *job, const struct task *task);

/* Runs the program for `count` pixels from `pixel` on. The values are loaded, or a convolution's sums in `scratch`,
 * whose pixels lie `scratch_stride` bytes apart and may have addends at the image's border. */
void run_program(const struct job *job, int pixel, int count, const char *scratch, ptrdiff_t scratch_stride,
                 const float *const *border);

/* Computes the sums of some of the job's tiles, for a block of outputs, and runs the program for them. */
void run_convolution(const struct job *job, int thread, struct range tiles, int block);

#endif
