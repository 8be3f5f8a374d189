#include "cache.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* What Linux tells of a cache of the first processor; false if there is no such cache. */
static bool read_entry(int index, const char *name, char *text, size_t size) {
  char path[80];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index, name);
  const int file = open(path, O_RDONLY);
  if (file < 0) return false;
  const ssize_t length = read(file, text, size - 1);
  close(file);
  text[length > 0 ? length : 0] = 0;
  return length > 0;
}

/* Processors in a list such as "0-3,8". */
static int count_processors(const char *list) {
  int count = 0;
  for (;;) {
    char *end;
    const long first = strtol(list, &end, 10), last = *end == '-' ? strtol(end + 1, &end, 10) : first;
    count += (int)(last - first + 1);
    if (*end != ',') return count > 0 ? count : 1;
    list = end + 1;
  }
}

/* Bytes of the first processor's cache of this level, and the processors that share it; 0 if Linux does not tell. */
static int64_t bytes_of_level(int level, int *sharers) {
  char text[64];
  for (int i = 0; read_entry(i, "level", text, sizeof text); i++) {
    if (strtol(text, NULL, 10) != level || !read_entry(i, "size", text, sizeof text)) continue;
    const int64_t kb = strtol(text, NULL, 10); /* such as 1024K */
    *sharers = read_entry(i, "shared_cpu_list", text, sizeof text) ? count_processors(text) : 1;
    if (kb > 0) return kb << 10;
  }
  return 0;
}

int64_t cache_bytes(int num_threads) {
  int sharers = 1;
  const int64_t second = bytes_of_level(2, &sharers), threads = (num_threads + sharers - 1) / sharers;
  const int64_t third = bytes_of_level(3, &sharers);
  if (!second) return 1 << 20;
  return third && third / 4 < second * threads ? third / 4 : second * threads;
}
