/* A plugin for Debian's dynamic qemu-user (7.2): how often each block of instructions runs between two calls of
 * getppid.
 *     qemu-aarch64 -plugin ./count_blocks.so,out=COUNTS PROGRAM
 * Writes a line for each block: the address of its first instruction, the number of its instructions, its runs.
 * No package has QEMU's header: what is used of it is declared here, from the published interface of version 1
 * (include/qemu/qemu-plugin.h).
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { NO_REGISTERS = 0, GETPPID = 173 /* of Linux on AArch64 */ };

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*callback)(plugin_id id, struct qemu_plugin_tb *block));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, void (*callback)(unsigned vcpu, void *data),
                                          int registers, void *data);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id id,
                                          void (*callback)(plugin_id id, unsigned vcpu, int64_t number, uint64_t a1,
                                                           uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5,
                                                           uint64_t a6, uint64_t a7, uint64_t a8));
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);

EXPORT int qemu_plugin_version = 1;
EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv);

/* A block that QEMU translates again has several. */
struct block {
  struct block *next;
  uint64_t address, instructions, runs;
};

static struct block *blocks;
static bool counting;
static const char *file_name;

static void count(unsigned vcpu, void *data) {
  (void)vcpu;
  if (counting) ((struct block *)data)->runs++;
}

/* QEMU translates one block at a time. */
static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
  (void)id;
  struct block *block = calloc(1, sizeof *block);
  if (!block) abort();
  *block = (struct block){blocks, qemu_plugin_tb_vaddr(tb), qemu_plugin_tb_n_insns(tb), 0};
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_cb(tb, count, NO_REGISTERS, block);
}

static void called(plugin_id id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                   uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  (void)id, (void)vcpu, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  if (number != GETPPID) return;
  counting = !counting;
  if (counting) return;
  FILE *file = fopen(file_name, "w");
  if (!file) abort();
  for (const struct block *b = blocks; b; b = b->next)
    if (b->runs) fprintf(file, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", b->address, b->instructions, b->runs);
  fclose(file);
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
  (void)info;
  if (argc != 1 || strncmp(argv[0], "out=", 4) != 0) {
    fprintf(stderr, "count_blocks: expected the argument out=NAME.\n");
    return 1;
  }
  file_name = strdup(argv[0] + 4);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}
