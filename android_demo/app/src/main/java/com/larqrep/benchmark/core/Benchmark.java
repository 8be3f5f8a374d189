package com.larqrep.benchmark.core;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;

/** Measures the time of runs. */
public final class Benchmark {
  private Benchmark() {}

  /** Is told of the progress, between runs, in the thread of the benchmark. */
  public interface Listener {
    /**
     * Some runs are done.
     *
     * @param done runs so far, from 1 on
     * @param total the first, the warm-up and the timed runs
     */
    void progress(int done, int total);
  }

  /**
   * Runs a network on input 0 of {@link InputGenerator}: once, then to warm up, then timed. Then it runs once on every
   * other input of the reference.
   *
   * @param model an {@link Engine}
   * @param options those with which it was made
   * @param reference outputs to compare with; null if there are none
   * @param listener is told of the progress
   * @param cancel when it becomes true, the benchmark ends after the run that is going on
   * @throws EngineException if TFLite refuses, or the names of the classes do not match the outputs
   * @throws CancelledException if it was cancelled
   */
  public static BenchmarkResult run(Model model, Options options, Reference reference, Listener listener,
      AtomicBoolean cancel) throws EngineException, CancelledException {
    int untimed = 1 + options.warmupRuns;
    int total = untimed + options.numRuns;
    fill(model, 0);
    double first = 0;
    double[] milliseconds = new double[options.numRuns];
    double[] nativeMilliseconds = new double[options.numRuns];
    for (int i = 0; i < total; i++) {
      if (cancel.get()) {
        throw new CancelledException();
      }
      long start = System.nanoTime();
      model.run();
      double duration = (System.nanoTime() - start) / 1e6;
      if (i == 0) {
        first = duration;
      }
      if (i >= untimed) {
        milliseconds[i - untimed] = duration;
        nativeMilliseconds[i - untimed] = model.nativeNanos() / 1e6;
      }
      listener.progress(i + 1, total);
    }
    try {
      float[][] values = model.values();
      List<Agreement> each = new ArrayList<>();
      each.add(Agreement.of(values, reference == null ? null : reference.outputs(0)));
      for (int i = 1; reference != null && i < reference.inputs(); i++) {
        if (cancel.get()) {
          throw new CancelledException();
        }
        fill(model, i);
        model.run();
        each.add(Agreement.of(model.values(), reference.outputs(i)));
      }
      return new BenchmarkResult(model, options, first, new Statistics(milliseconds),
          new Statistics(nativeMilliseconds).median, values, Agreement.ofAll(each));
    } catch (OutOfMemoryError error) { // A file may have outputs of any size.
      throw new EngineException("The memory does not suffice for the outputs of " + model.file().file() + ".", error);
    }
  }

  private static void fill(Model model, int number) {
    for (int i = 0; i < model.inputs().size(); i++) {
      TensorInfo input = model.inputs().get(i);
      InputGenerator.fill(model.input(i), input.type, input.count(), number);
    }
  }
}
