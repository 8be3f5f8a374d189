/* Reads integers out of a flexbuffer map, with every offset checked: the bytes come from a file.
 *
 * Layout (flatbuffers' flexbuffers.md): the last byte is the width of the root, the one before its type; a map's
 * values are preceded by their count, by the width of its keys and by the distance to them, and followed by a byte
 * of type for each value.
 */
#include "flexbuffer.h"

#include <string.h>

enum { TYPE_INT = 1, TYPE_UINT = 2, TYPE_INDIRECT_INT = 6, TYPE_INDIRECT_UINT = 7, TYPE_MAP = 9, TYPE_BOOL = 26 };

struct bytes {
  const uint8_t *data;
  size_t size;
};

static bool read_unsigned(struct bytes b, size_t at, size_t width, uint64_t *value) {
  if (width > 8 || at > b.size || b.size - at < width) return false;
  *value = 0;
  for (size_t i = 0; i < width; i++) *value |= (uint64_t)b.data[at + i] << (8 * i);
  return true;
}

/* The place that the offset at `at` points to: offsets point backwards. */
static bool follow_offset(struct bytes b, size_t at, size_t width, size_t *target) {
  uint64_t distance;
  if (!read_unsigned(b, at, width, &distance) || distance > at) return false;
  *target = at - (size_t)distance;
  return true;
}

static bool key_equals(struct bytes b, size_t at, const char *key) {
  const size_t length = strlen(key) + 1;
  return at <= b.size && b.size - at >= length && memcmp(b.data + at, key, length) == 0;
}

static bool read_int(struct bytes b, size_t at, size_t width, unsigned packed_type, int64_t *value) {
  const unsigned type = packed_type >> 2;
  if (type == TYPE_INDIRECT_INT || type == TYPE_INDIRECT_UINT) {
    if (!follow_offset(b, at, width, &at)) return false;
    width = (size_t)1 << (packed_type & 3);
  } else if (type != TYPE_INT && type != TYPE_UINT && type != TYPE_BOOL) {
    return false;
  }
  uint64_t raw;
  if (!read_unsigned(b, at, width, &raw)) return false;
  const bool is_signed = type == TYPE_INT || type == TYPE_INDIRECT_INT;
  if (is_signed && width < 8 && raw >> (8 * width - 1)) raw |= UINT64_MAX << (8 * width);
  *value = (int64_t)raw;
  return true;
}

bool flexbuffer_int(const uint8_t *data, size_t size, const char *key, int64_t *value) {
  const struct bytes b = {data, size};
  if (!data || size < 3) return false;
  const size_t root_width = data[size - 1];
  const unsigned root_type = data[size - 2];
  if ((root_width != 1 && root_width != 2 && root_width != 4 && root_width != 8) || size - 2 < root_width ||
      root_type >> 2 != TYPE_MAP)
    return false;
  size_t map;
  if (!follow_offset(b, size - 2 - root_width, root_width, &map)) return false;
  const size_t width = (size_t)1 << (root_type & 3);
  uint64_t count, key_width;
  size_t keys;
  if (map < 3 * width || !read_unsigned(b, map - width, width, &count) ||
      !read_unsigned(b, map - 2 * width, width, &key_width) || !follow_offset(b, map - 3 * width, width, &keys))
    return false;
  if ((key_width != 1 && key_width != 2 && key_width != 4 && key_width != 8) || count > size) return false;
  for (size_t i = 0; i < count; i++) {
    size_t name;
    uint64_t type;
    if (!follow_offset(b, keys + i * (size_t)key_width, (size_t)key_width, &name)) return false;
    if (!key_equals(b, name, key)) continue;
    return read_unsigned(b, map + (size_t)count * width + i, 1, &type) &&
           read_int(b, map + i * width, width, (unsigned)type, value);
  }
  return false;
}
