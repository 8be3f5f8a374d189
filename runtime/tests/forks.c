/* A pool of threads in forked processes: several threads of the child use it at once, while threads of the parent do,
 * and so do the child's children. Every index has to be done once, with no more workers than were asked for, and
 * nobody may hang. What starts a pool is slow here, so that the callers meet.
 *   forks [rounds]
 */
#include <dirent.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../src/threads.h"

enum { THREADS = 3, CALLERS = 4, INDICES = 40, JOBS = 30, GENERATIONS = 3 };

extern char **environ;

static void pause_for(long microseconds) { nanosleep(&(struct timespec){.tv_nsec = 1000 * microseconds}, NULL); }

/* These two replace the C library's. */
pid_t getpid(void) {
  pause_for(300);
  return (pid_t)syscall(SYS_getpid);
}

int pthread_cond_init(pthread_cond_t *restrict cond, const pthread_condattr_t *restrict attributes) {
  (void)attributes;
  pause_for(300);
  *cond = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
  return 0;
}

static struct threads *pool;
static atomic_int wrong;
static atomic_bool ended;

static void count_index(void *argument, int thread, int index) {
  atomic_int *counts = argument;
  atomic_fetch_add(&counts[index], 1);
  if (thread < 0 || thread >= THREADS) atomic_fetch_add(&wrong, 1);
}

static void run_job(void) {
  atomic_int counts[INDICES];
  for (int i = 0; i < INDICES; i++) atomic_init(&counts[i], 0);
  run_parallel(pool, THREADS, count_index, counts, INDICES);
  for (int i = 0; i < INDICES; i++)
    if (atomic_load(&counts[i]) != 1) atomic_fetch_add(&wrong, 1);
}

static void *call(void *argument) {
  (void)argument;
  for (int i = 0; i < JOBS; i++) run_job();
  rest_threads(pool);
  return NULL;
}

static void *call_on(void *argument) {
  while (!atomic_load(&ended)) run_job();
  return argument;
}

static int threads_of_process(void) {
  int count = 0;
  DIR *folder = opendir("/proc/self/task");
  for (const struct dirent *entry; folder && (entry = readdir(folder));) count += entry->d_name[0] != '.';
  if (folder) closedir(folder);
  return count;
}

static int use_pool(void) {
  pthread_t callers[CALLERS];
  for (int i = 0; i < CALLERS; i++) pthread_create(&callers[i], NULL, call, NULL);
  for (int i = 0; i < CALLERS; i++) pthread_join(callers[i], NULL);
  /* This one and the workers; who has just been joined may still be listed. */
  for (int i = 0; i < 1000 && threads_of_process() > THREADS; i++) pause_for(1000);
  if (threads_of_process() > THREADS) {
    fprintf(stderr, "%d threads instead of %d\n", threads_of_process(), THREADS);
    return 1;
  }
  return atomic_load(&wrong) != 0;
}

/* A child that uses the pool, has a child that does so, too, and ends the pool; or one that only ends it. */
static int fork_and_use(int generation, bool uses) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    int failed = uses && use_pool();
    if (!failed && generation < GENERATIONS) failed = fork_and_use(generation + 1, uses);
    stop_threads(pool);
    _exit(failed);
  }
  int status;
  if (waitpid(child, &status, 0) != child || status == 0) return child < 0;
  fprintf(stderr, "generation %d: status %d%s\n", generation, status, WIFSIGNALED(status) ? ", it hung" : "");
  return 1;
}

int main(int argc, char **argv) {
  const int rounds = argc > 1 ? atoi(argv[1]) : 20;
  int failed = 0;
  for (int round = 0; round < rounds && !failed; round++) {
    pthread_t others[2];
    pid_t spawned;
    int status;
    pool = make_threads();
    atomic_store(&ended, false);
    for (int i = 0; i < 2; i++) pthread_create(&others[i], NULL, call_on, NULL);
    run_job();
    failed = fork_and_use(1, round % 4 > 0);
    /* The parent and a program that it starts see nothing of all that. */
    failed = failed || posix_spawnp(&spawned, "true", NULL, NULL, (char *[]){"true", NULL}, environ) ||
             waitpid(spawned, &status, 0) != spawned || status;
    atomic_store(&ended, true);
    for (int i = 0; i < 2; i++) pthread_join(others[i], NULL);
    failed = use_pool() || failed;
    stop_threads(pool);
  }
  printf("%d rounds: %s\n", rounds, failed ? "failed" : "passed");
  return failed;
}
