/* AMX int8 for processors without it, linked into a test: a tile instruction raises SIGILL, and the handler does what
 * Intel's manual says. Of the instructions only those that a compiler makes of the kernel's intrinsics are known; what
 * a processor would refuse ends the program.
 */
#if defined(__x86_64__)
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ucontext.h>

static _Thread_local struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} shapes;
static _Thread_local union {
  int8_t bytes[64];
  int32_t sums[16];
} tiles[8][16];

static void check(int right) {
  if (right) return;
  fputs("an instruction that is unknown, or that AMX refuses\n", stderr);
  _Exit(1);
}

static void configure(const void *from) {
  memcpy(&shapes, from, sizeof shapes);
  check(shapes.palette == 1 && shapes.start_row == 0);
  for (int i = 0; i < 16; i++) {
    const int rows = shapes.rows[i], bytes = shapes.row_bytes[i];
    check(i < 8 ? rows <= 16 && bytes <= 64 && !rows == !bytes : !rows && !bytes);
  }
  memset(tiles, 0, sizeof tiles);
}

static void move(int tile, char *memory, ptrdiff_t stride, int store) {
  check(tile < 8 && shapes.rows[tile]);
  if (!store) memset(tiles[tile], 0, sizeof tiles[tile]);
  for (int row = 0; row < shapes.rows[tile]; row++) {
    char *at = memory + row * stride;
    if (store)
      memcpy(at, &tiles[tile][row], shapes.row_bytes[tile]);
    else
      memcpy(&tiles[tile][row], at, shapes.row_bytes[tile]);
  }
}

/* TDPBSSD */
static void multiply(int c, int a, int b) {
  check(a < 8 && b < 8 && c < 8 && a != b && a != c && b != c);
  const int rows = shapes.rows[c], columns = shapes.row_bytes[c] / 4, depth = shapes.row_bytes[a] / 4;
  check(rows && rows == shapes.rows[a] && depth == shapes.rows[b] && shapes.row_bytes[b] == shapes.row_bytes[c]);
  for (int m = 0; m < rows; m++)
    for (int k = 0; k < depth; k++)
      for (int n = 0; n < columns; n++)
        for (int i = 0; i < 4; i++) tiles[c][m].sums[n] += tiles[a][m].bytes[4 * k + i] * tiles[b][k].bytes[4 * n + i];
}

static void emulate(int signal, siginfo_t *info, void *context) {
  (void)signal;
  (void)info;
  static const int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const uint8_t *at = (const uint8_t *)(uintptr_t)registers[REG_RIP];
  /* A prefix VEX of three bytes, of the map 0F 38, with W = 0 and 128 bits. */
  check(at[0] == 0xc4 && (at[1] & 31) == 2 && !(at[2] & 0x84));
  const int prefix = at[2] & 3, third = ~at[2] >> 3 & 15, opcode = at[3], mode = at[4] >> 6, reg = at[4] >> 3 & 7;
  int rm = at[4] & 7;
  enum { NONE, P66, PF3, PF2 };
  at += 5;
  if (mode == 3) {
    if (opcode == 0x49 && prefix == NONE && !reg && !rm) {
      memset(&shapes, 0, sizeof shapes);
      memset(tiles, 0, sizeof tiles);
    } else {
      check(opcode == 0x5e && prefix == PF2);
      multiply(reg, rm, third);
    }
  } else {
    const uint8_t extended = ~((const uint8_t *)(uintptr_t)registers[REG_RIP])[1];
    const int indexed = rm == 4;
    ptrdiff_t stride = 0;
    int32_t offset = 0;
    if (indexed) {
      const int index = (*at >> 3 & 7) | (extended >> 3 & 8);
      if (index != 4) stride = (ptrdiff_t)registers[order[index]] * (1 << (*at >> 6));
      rm = *at++ & 7;
    }
    const int no_base = mode == 0 && rm == 5;
    if (mode == 1)
      offset = (int8_t)*at++;
    else if (mode == 2 || no_base) {
      memcpy(&offset, at, sizeof offset);
      at += sizeof offset;
    }
    greg_t base = registers[order[rm | (extended >> 2 & 8)]];
    if (no_base) base = indexed ? 0 : (greg_t)(uintptr_t)at;
    char *memory = (char *)(uintptr_t)(base + offset);
    if (opcode == 0x49) {
      check(prefix == NONE && reg == 0);
      configure(memory + stride);
    } else {
      check(opcode == 0x4b && indexed && (prefix == PF2 || prefix == PF3));
      move(reg, memory, stride, prefix == PF3);
    }
  }
  registers[REG_RIP] = (greg_t)(uintptr_t)at;
}

__attribute__((constructor)) static void install(void) {
  const struct sigaction action = {.sa_sigaction = emulate, .sa_flags = SA_SIGINFO};
  if (sigaction(SIGILL, &action, NULL)) abort();
}
#endif
