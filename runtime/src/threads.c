/* A pool of workers. Between the steps of one inference they look for work for some microseconds, then they sleep. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "delegate.h"

enum { MAX_THREADS = 64, SPINS = 4000 };

struct threads {
  pthread_mutex_t owner; /* held by the one caller that uses the workers */
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  pthread_t workers[MAX_THREADS];
  int started;
  atomic_uint generation; /* of the work to do; changes under mutex */
  atomic_bool stop;
  void (*task)(void *argument, int thread, int index);
  void *argument;
  int count, helpers;
  atomic_int next, working;
};

struct worker {
  struct threads *threads;
  int thread;
};

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void work(struct threads *threads, int thread) {
  for (int i; (i = atomic_fetch_add(&threads->next, 1)) < threads->count;) threads->task(threads->argument, thread, i);
}

static void *worker_main(void *argument) {
  struct worker self = *(struct worker *)argument;
  struct threads *threads = self.threads;
  free(argument);
  unsigned seen = 0;
  for (;;) {
    for (int i = 0; i < SPINS && atomic_load(&threads->generation) == seen; i++) relax();
    pthread_mutex_lock(&threads->mutex);
    while (atomic_load(&threads->generation) == seen && !atomic_load(&threads->stop))
      pthread_cond_wait(&threads->wake, &threads->mutex);
    if (atomic_load(&threads->stop)) {
      pthread_mutex_unlock(&threads->mutex);
      return NULL;
    }
    seen = atomic_load(&threads->generation);
    const bool helps = self.thread <= threads->helpers;
    pthread_mutex_unlock(&threads->mutex);
    if (helps) {
      work(threads, self.thread);
      atomic_fetch_sub(&threads->working, 1);
    }
  }
}

struct threads *make_threads(void) {
  struct threads *threads = calloc(1, sizeof *threads);
  if (!threads) return NULL;
  pthread_mutex_init(&threads->owner, NULL);
  pthread_mutex_init(&threads->mutex, NULL);
  pthread_cond_init(&threads->wake, NULL);
  return threads;
}

void stop_threads(struct threads *threads) {
  if (!threads) return;
  pthread_mutex_lock(&threads->mutex);
  atomic_store(&threads->stop, true);
  pthread_cond_broadcast(&threads->wake);
  pthread_mutex_unlock(&threads->mutex);
  /* A worker that still spins sees the stop after its next look at the mutex. */
  for (int i = 0; i < threads->started; i++) pthread_join(threads->workers[i], NULL);
  pthread_cond_destroy(&threads->wake);
  pthread_mutex_destroy(&threads->mutex);
  pthread_mutex_destroy(&threads->owner);
  free(threads);
}

/* With the owner's lock held. */
static void start_workers(struct threads *threads, int workers) {
  while (threads->started < workers && threads->started < MAX_THREADS) {
    struct worker *worker = malloc(sizeof *worker);
    if (!worker) return;
    *worker = (struct worker){threads, threads->started + 1};
    if (pthread_create(&threads->workers[threads->started], NULL, worker_main, worker)) {
      free(worker);
      return;
    }
    threads->started++;
  }
}

void run_parallel(struct threads *threads, int num_threads, void (*task)(void *argument, int thread, int index),
                  void *argument, int count) {
  if (num_threads < 2 || count < 2 || !threads || pthread_mutex_trylock(&threads->owner)) {
    for (int i = 0; i < count; i++) task(argument, 0, i);
    return;
  }
  start_workers(threads, num_threads - 1);
  const int helpers = threads->started < num_threads - 1 ? threads->started : num_threads - 1;
  pthread_mutex_lock(&threads->mutex);
  threads->task = task;
  threads->argument = argument;
  threads->count = count;
  threads->helpers = helpers;
  atomic_store(&threads->next, 0);
  atomic_store(&threads->working, helpers);
  atomic_fetch_add(&threads->generation, 1);
  pthread_cond_broadcast(&threads->wake);
  pthread_mutex_unlock(&threads->mutex);
  work(threads, 0);
  for (int i = 0; atomic_load(&threads->working) > 0; i++)
    if (i < SPINS)
      relax();
    else
      sched_yield();
  pthread_mutex_unlock(&threads->owner);
}
