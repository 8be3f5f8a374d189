/* What an instruction set must provide: sums of products of packed signs, and programs over their results. */
#ifndef LARQ_REP_KERNELS_H
#define LARQ_REP_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  UNIT = 32, /* channels of a packed word; a program handles them in whole units */
  MAX_INSTRUCTIONS = 24,
  MAX_TILE = 32,  /* the most pixels that a kernel accumulates at once */
  MAX_SUMMED = 8, /* the most convolutions that a program adds */
  /* Sums, less than 2^23, are counted from here: as the bits of the float 2^23 + sum. A subtraction then converts them,
   * which some processors do faster than they convert integers. */
  SUM_ZERO = 0x4b000000,
};

/* One binary convolution as the kernels see it: a matrix product of pixels and output channels.
 *
 * Weights lie in vectors of `lanes` output channels, [vector][cell][lane]. A cell is a word of 32 input channels of
 * one tap, or two words if the instruction set counts 64 bits at once (the last cell of a tap may be half). */
struct gemm {
  int groups;
  int taps;
  const int32_t *tap_offsets; /* of each tap's first word from the pixel's first tap, in words */
  int words;                  /* of one tap and group */
  int vectors;                /* of output channels in a group */
  size_t vector_words;        /* 32-bit words of packed weights of a vector */
  const uint32_t *weights;
};

/* A program computes v for one pixel and all its channels, one instruction after the other. */
enum opcode {
  OP_ACCUMULATED, /* v = float(acc - SUM_ZERO) * scale + shift, then + border where the window leaves the image; all of
                     them from source_channels, where these are given */
  OP_CLAMPED,     /* the same, 2 (acc - SUM_ZERO) kept within [low, high] */
  OP_ADD_ACCUMULATED, /* v + what OP_ACCUMULATED gives, or OP_CLAMPED where low < high, without source_channels */
  OP_LOAD,            /* v = source */
  OP_LOAD_REPEATED,   /* the same if the source has fewer channels, which repeat */
  OP_LOAD_INT8,       /* v = (source - low) * high */
  OP_LOAD_SIGNS,      /* v = source ? -1 : 1, packed */
  OP_LOAD_BOOL,       /* v = source ? 1 : -1 */
  OP_ADD,             /* v + constant */
  OP_SUBTRACT,        /* v - constant */
  OP_SUBTRACT_FROM,   /* constant - v */
  OP_MULTIPLY,        /* v * constant */
  OP_PRELU,           /* v >= 0 ? v : v * constant */
  OP_FALL,        /* the same where 0 < constant <= 1 and v is no denormal number: the maximum of v and v * constant */
  OP_CLIP,        /* min(max(v, low), high), NaN where v is */
  OP_AT_LEAST,    /* v > low ? v : low, also where v is NaN */
  OP_NEGATE,      /* -v */
  OP_IS_POSITIVE, /* v > 0 ? 1 : -1, also where v is NaN */
  OP_MEAN,        /* v * low + 0, which is +0 for -0 */
  OP_ADD_LOADED,
  OP_ADD_LOADED_REPEATED,
  OP_SUBTRACT_LOADED,
  OP_SUBTRACT_FROM_LOADED,
  OP_ADD_LOADED_INT8, /* v + (source - low) * high */
  OP_MULTIPLY_LOADED,
  OP_MIN_LOADED,      /* v < source ? v : source */
  OP_MAX_LOADED,      /* source > v ? source : v: zeros are equal, and a NaN is not greater */
  OP_STORE,           /* target = v */
  OP_STORE_INT8,      /* target = v rounded half away from zero, saturated; -128 where v is NaN */
  OP_STORE_QUANTIZED, /* target = v * low rounded half to even, + high, saturated; -128 where v is NaN */
  OP_STORE_SIGNS,     /* target = v < constant, packed */
};

static inline bool is_packed(enum opcode code) { return code == OP_LOAD_SIGNS || code == OP_STORE_SIGNS; }

static inline bool is_store(enum opcode code) {
  return code == OP_STORE || code == OP_STORE_INT8 || code == OP_STORE_QUANTIZED || code == OP_STORE_SIGNS;
}

static inline bool is_result(enum opcode code) { return code == OP_ACCUMULATED || code == OP_CLAMPED; }

struct instruction {
  enum opcode code;
  float low, high;
  const float *constant;          /* padded to whole units */
  const float *scale;             /* *_ACCUMULATED: of constant (the shift) */
  const float *const *border;     /* *_ACCUMULATED: an addend for each pixel, or NULL inside the image */
  const int32_t *source_channels; /* *_REPEATED and OP_ACCUMULATED: of each unit */
  char *data;                     /* source or target of the first pixel */
  ptrdiff_t stride;               /* bytes from a pixel to the next */
};

typedef void (*run_function)(const struct instruction *program, int count, int channels, int pixels);

/* A program in straight-line code. */
struct straight {
  int count; /* 0: the end of the list */
  uint8_t codes[12];
  run_function run;
};

struct kernels {
  const char *name;
  bool (*supported)(void);
  const char *(*lack)(void);   /* why it is not supported, NULL if it is; or no such function */
  bool (*preferred)(void);     /* whether to choose it unasked, where it is supported; or no such function */
  const struct kernels *small; /* for programs and for groups of little work, see weights.c; or NULL: itself */
  int lanes;                   /* output channels in a vector of weights */
  int cell_words;              /* 32-bit words of a cell: 1 or 2 */
  int tile;                    /* pixels of a tile */
  int tile_rest;               /* pixels of the last tile if no more are left; or 0: as the others */
  bool ones;                   /* behind each vector's weights follows SUM_ZERO + the number of ones of each lane */
  bool nibbles; /* weights lie in bytes of 4 bits, [vector][cell][4 bits][lane]; lanes 16 to 31 between the others */
  /* acc[pixel][group][vector][lane] = SUM_ZERO + bits that differ, for `pixels` (tile or tile_rest) pixels. */
  void (*accumulate)(const struct gemm *gemm, int pixels, const uint32_t *const *x, int32_t *acc, size_t acc_stride);
  run_function run; /* any program */
  const struct straight *straight;
};

extern const struct kernels kernels_portable, kernels_popcnt, kernels_avx2, kernels_avx512, kernels_neon;

/* Not on Android, whose sandbox ends an app that asks for AMX. */
#if defined(__x86_64__) && defined(__linux__) && !defined(__ANDROID__) && \
    (__has_include(<amxint8intrin.h>) || __has_include(<amxintrin.h>)) /* of GCC, of Clang */
#define HAS_AMX
extern const struct kernels kernels_amx;
#endif

/* The table of implementations, best first, ended by NULL; those that this build has. */
extern const struct kernels *const all_kernels[];

/* Why this processor does not run the implementation with that name, if it knows; otherwise NULL. */
const char *lack_of_kernels(const char *name);

/* The best implementation that this processor runs, or the one with that name; NULL if there is none. */
const struct kernels *choose_kernels(const char *name);

/* The names of all implementations that this processor runs, separated by commas, the best first. */
void list_kernels(char *text, size_t size);

/* The fastest function for a program. */
run_function find_run(const struct kernels *kernels, const struct instruction *program, int count);

#endif
