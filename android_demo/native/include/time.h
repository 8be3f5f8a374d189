#pragma once

typedef long time_t;
typedef int clockid_t;
struct timespec {
  time_t tv_sec;
  long tv_nsec;
};
enum { CLOCK_MONOTONIC = 1 };

_Static_assert(sizeof(struct timespec) == 16, "bionic's timespec");

int clock_gettime(clockid_t clock, struct timespec *time);
