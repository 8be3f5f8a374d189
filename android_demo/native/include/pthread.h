#pragma once

#include <stdint.h>

typedef struct {
  int32_t reserved[10];
} pthread_mutex_t;
typedef struct {
  int32_t reserved[12];
} pthread_cond_t;
typedef struct {
  uint32_t flags;
  void *stack_base;
  unsigned long stack_size, guard_size;
  int32_t sched_policy, sched_priority;
  char reserved[16];
} pthread_attr_t;
typedef long pthread_t, pthread_mutexattr_t, pthread_condattr_t;

_Static_assert(sizeof(pthread_mutex_t) == 40 && _Alignof(pthread_mutex_t) == 4, "bionic's pthread_mutex_t");
_Static_assert(sizeof(pthread_cond_t) == 48 && _Alignof(pthread_cond_t) == 4, "bionic's pthread_cond_t");
_Static_assert(sizeof(pthread_attr_t) == 56 && sizeof(pthread_t) == 8, "bionic's pthread_attr_t and pthread_t");

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
int pthread_join(pthread_t thread, void **result);
int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int pthread_mutex_destroy(pthread_mutex_t *mutex);
int pthread_mutex_lock(pthread_mutex_t *mutex);
int pthread_mutex_trylock(pthread_mutex_t *mutex);
int pthread_mutex_unlock(pthread_mutex_t *mutex);
int pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);
int pthread_cond_destroy(pthread_cond_t *condition);
int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int pthread_cond_broadcast(pthread_cond_t *condition);
