/* A pool of workers. Between the steps of one inference they look for work for some microseconds, then they sleep. */
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "delegate.h"

enum { SPINS = 4000 };

struct batch {
  void (*task)(void *argument, int thread, int index);
  void *argument;
  int count, helpers;
};

struct threads {
  atomic_uint home;      /* twice the `forks` of the workers' process; one more while they are restarted there */
  pthread_mutex_t owner; /* held by the one caller that uses the workers */
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  pthread_t workers[MAX_THREADS];
  int started;
  bool stop; /* under mutex, as is the batch */
  struct batch batch;
  atomic_uint generation; /* of the batch; changes under mutex */
  /* The generation of a batch and, 16 bits each, how many indices were taken from its end and from its beginning, in
   * one number: a worker that takes an index of a batch that still has some left may use it until that index is done,
   * because the caller waits for it; nobody waits for a worker that comes too late to take one. */
  _Atomic uint64_t ticket;
  atomic_int undone;
  atomic_bool resting; /* no batch follows soon */
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

/* Every other thread takes indices from the end: with two threads, and often enough with more, the one that reads
 * a part of a tensor is then the one that wrote it, and has it in its cache. */
static void work(struct threads *threads, const struct batch *batch, unsigned generation, int thread) {
  uint64_t ticket = atomic_load(&threads->ticket);
  for (;;) {
    const int front = (int)(ticket & 0xffff), back = (int)(ticket >> 16 & 0xffff);
    if (ticket >> 32 != generation || front + back >= batch->count) return;
    const bool from_end = thread % 2;
    if (!atomic_compare_exchange_weak(&threads->ticket, &ticket, ticket + (from_end ? 1 << 16 : 1))) continue;
    batch->task(batch->argument, thread, from_end ? batch->count - 1 - back : front);
    atomic_fetch_sub(&threads->undone, 1);
    ticket = atomic_load(&threads->ticket);
  }
}

static void *worker_main(void *argument) {
  struct worker self = *(struct worker *)argument;
  struct threads *threads = self.threads;
  free(argument);
  unsigned seen = 0;
  for (;;) {
    for (int i = 0; i < SPINS && atomic_load(&threads->generation) == seen && !atomic_load(&threads->resting); i++)
      relax();
    /* The caller that changed the generation is about to unlock: falling asleep over that would take far longer. */
    for (int i = 0; pthread_mutex_trylock(&threads->mutex); i++)
      if (i < 100) {
        relax();
      } else {
        pthread_mutex_lock(&threads->mutex);
        break;
      }
    while (atomic_load(&threads->generation) == seen && !threads->stop)
      pthread_cond_wait(&threads->wake, &threads->mutex);
    const bool stop = threads->stop;
    const struct batch batch = threads->batch;
    seen = atomic_load(&threads->generation);
    pthread_mutex_unlock(&threads->mutex);
    if (stop) return NULL;
    if (self.thread <= batch.helpers) work(threads, &batch, seen, self.thread);
  }
}

/* The number of forks between the first process and this one. A process copies its parent's pools, but neither their
 * workers nor the owners of their locks; different numbers show that, even if process ids are reused. */
static atomic_uint forks;

#ifndef __ANDROID__ /* an app never goes on in a forked process */
static void count_fork(void) { atomic_fetch_add(&forks, 1); }
#endif

static unsigned home_here(void) { return 2 * atomic_load(&forks); }

static void start_empty(struct threads *threads) {
  pthread_mutex_init(&threads->owner, NULL);
  pthread_mutex_init(&threads->mutex, NULL);
  pthread_cond_init(&threads->wake, NULL);
  threads->started = 0;
  threads->stop = false;
  atomic_store(&threads->generation, 0);
}

/* Whether the pool can be used. In a forked process the first caller restarts it; nobody waits for that. */
static bool is_here(struct threads *threads) {
  const unsigned here = home_here();
  unsigned home = atomic_load(&threads->home);
  if (home == here) return true;
  if (home == here + 1 || !atomic_compare_exchange_strong(&threads->home, &home, here + 1)) return false;
  start_empty(threads);
  atomic_store(&threads->home, here);
  return true;
}

struct threads *make_threads(void) {
#ifndef __ANDROID__            /* an app never goes on in a forked process */
  static atomic_bool counting; /* if two threads come here at once, counting twice does no harm */
  if (!atomic_load(&counting) && pthread_atfork(NULL, NULL, count_fork)) return NULL;
  atomic_store(&counting, true);
#endif
  struct threads *threads = calloc(1, sizeof *threads);
  if (!threads) return NULL;
  start_empty(threads);
  atomic_store(&threads->home, home_here());
  return threads;
}

void stop_threads(struct threads *threads) {
  if (!threads) return;
  if (atomic_load(&threads->home) != home_here()) { /* no workers to join */
    free(threads);
    return;
  }
  pthread_mutex_lock(&threads->mutex);
  threads->stop = true;
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
    *worker = (struct worker){.threads = threads, .thread = threads->started + 1};
    if (pthread_create(&threads->workers[threads->started], NULL, worker_main, worker)) {
      free(worker);
      return;
    }
    threads->started++;
  }
}

void run_parallel(struct threads *threads, int num_threads, void (*task)(void *argument, int thread, int index),
                  void *argument, int count) {
  if (num_threads < 2 || count < 2 || !threads || !is_here(threads) || pthread_mutex_trylock(&threads->owner)) {
    for (int i = 0; i < count; i++) task(argument, 0, i);
    return;
  }
  start_workers(threads, num_threads - 1);
  const int helpers = threads->started < num_threads - 1 ? threads->started : num_threads - 1;
  const struct batch batch = {.task = task, .argument = argument, .count = count, .helpers = helpers};
  pthread_mutex_lock(&threads->mutex);
  threads->batch = batch;
  atomic_store(&threads->resting, false);
  const unsigned generation = atomic_load(&threads->generation) + 1;
  atomic_store(&threads->undone, count);
  atomic_store(&threads->ticket, (uint64_t)generation << 32);
  atomic_store(&threads->generation, generation);
  pthread_mutex_unlock(&threads->mutex);
  pthread_cond_broadcast(&threads->wake);
  work(threads, &batch, generation, 0);
  for (int i = 0; atomic_load(&threads->undone) > 0; i++)
    if (i < SPINS)
      relax();
    else
      sched_yield();
  pthread_mutex_unlock(&threads->owner);
}

void rest_threads(struct threads *threads) { atomic_store(&threads->resting, true); }
