/* A pool of threads. */
#ifndef LARQ_REP_THREADS_H
#define LARQ_REP_THREADS_H

struct threads;

/* An empty pool. Its workers sleep while there is nothing to do. */
struct threads *make_threads(void);
void stop_threads(struct threads *threads);
/* task(argument, thread, index) for all indices below count, by up to num_threads threads, the caller one of them;
 * returns when all are done. Where another caller uses or starts the workers already, this one works alone. */
void run_parallel(struct threads *threads, int num_threads, void (*task)(void *argument, int thread, int index),
                  void *argument, int count);

/* Lets the workers sleep at once, so that they do not hold back what comes next, such as TFLite's own. */
void rest_threads(struct threads *threads);

#endif
