/* Programs: the instructions that a convolution or a pass over a tensor runs for its pixels. */
#ifndef LARQ_REP_PROGRAM_H
#define LARQ_REP_PROGRAM_H

#include "buffers.h"
#include "partition.h"

/* Some rows of a step's output that threads share. */
struct job {
  const struct partition *partition;
  const struct step *step;
  int h, w;                        /* of the step's output */
  struct range pixels;             /* to do, of all images */
  int grain;                       /* pixels that one thread does together: a tile of a convolution */
  int blocks, block;               /* of a convolution's outputs, and how many are in one; each stays in the cache */
  int pieces;                      /* of the pixels; pieces times blocks are the parts of the work */
  int channels;                    /* of the program */
  bool by_row;                     /* neighbours in memory end with a row */
  struct image inputs[MAX_SUMMED]; /* of its convolutions */
  struct instruction program[MAX_INSTRUCTIONS + 1];
};

/* A thread's copy of a job's program, which it moves from pixel to pixel. */
struct cursor {
  const struct job *job;
  int row; /* whose first pixel the starts belong to; rows of all images are counted */
  int memory_count, memory[MAX_INSTRUCTIONS]; /* instructions with data in buffers */
  int sum_count, sums[MAX_SUMMED];            /* instructions with data in tiles */
  char *start[MAX_INSTRUCTIONS];
  struct instruction program[MAX_INSTRUCTIONS];
};

/* Gives the step's instructions their data of pixel 0. */
void start_program(struct job *job);

/* The sums of a tile, for each of the convolutions that a step adds. */
struct tile {
  int x, y, n;                                /* of its first pixel */
  ptrdiff_t scratch;                          /* of the thread, in bytes */
  const float *borders[MAX_SUMMED][MAX_TILE]; /* addends at the image's border */
  bool bordered[MAX_SUMMED];                  /* otherwise there are none */
};

/* Gives convolutions their instructions and their inputs; copies external inputs into some with a border. */
void start_convolutions(struct job *job, const struct task *task);

void start_cursor(struct cursor *cursor, const struct job *job);

/* Runs the program for `count` pixels from `pixel` on. The values are loaded, or a tile's. */
void run_program(struct cursor *cursor, int pixel, int count, const struct tile *tile);

/* Computes the sums of some of the job's tiles, for a block of outputs, and runs the program for them. */
void run_convolution(const struct job *job, int thread, struct range tiles, int block);

#endif
