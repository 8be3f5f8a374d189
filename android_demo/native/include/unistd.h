#pragma once

#include <stddef.h>

typedef long ssize_t;

int close(int file);
ssize_t read(int file, void *data, size_t size);
