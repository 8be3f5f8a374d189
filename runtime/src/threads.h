/* A pool of threads. */
#ifndef LARQ_REP_THREADS_H
#define LARQ_REP_THREADS_H

struct threads;

/* An empty pool. Its workers sleep while there is nothing to do. */
struct threads *make_threads(void);
void stop_threads(struct threads *threads);
/* Calls task(argument, thread, index) for all indices below count on up to num_threads threads, including the caller;
 * returns when all are done. If another caller already uses or starts the workers, this one works alone. */
void run_parallel(struct threads *threads, int num_threads, void (*task)(void *argument, int thread, int index),
                  void *argument, int count);

/* Lets the workers sleep at once, so that they do not slow down the work that follows, such as TFLite's. */
void rest_threads(struct threads *threads);

#endif
