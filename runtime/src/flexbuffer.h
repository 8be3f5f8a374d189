/* Integers of a flexbuffer map, the form in which LCE writes its operators' options. */
#ifndef LARQ_REP_FLEXBUFFER_H
#define LARQ_REP_FLEXBUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Finds the integer with a name; false if it is absent or the buffer is malformed. */
bool flexbuffer_int(const uint8_t *data, size_t size, const char *key, int64_t *value);

#endif
