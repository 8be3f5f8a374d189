package com.larqrep.benchmark.core;

import java.util.Arrays;

/** The spread of the times of runs: percentiles interpolated linearly, as numpy's and {@code lce-run}'s. */
public final class Statistics {
  private final double[] runs;
  public final double min;
  public final double p10;
  public final double median;
  public final double p90;

  /**
   * Computes them.
   *
   * @param milliseconds time of each run, in order; at least one
   */
  public Statistics(double[] milliseconds) {
    if (milliseconds.length == 0) {
      throw new IllegalArgumentException("Statistics need at least one run, found none.");
    }
    runs = milliseconds.clone();
    double[] sorted = milliseconds.clone();
    Arrays.sort(sorted);
    min = sorted[0];
    p10 = percentile(sorted, 0.1);
    median = percentile(sorted, 0.5);
    p90 = percentile(sorted, 0.9);
  }

  /** Time of each run in milliseconds, in the order in which they ran. */
  public double[] runs() {
    return runs.clone();
  }

  private static double percentile(double[] sorted, double share) {
    double place = share * (sorted.length - 1);
    int below = (int) place;
    double low = sorted[below];
    double high = sorted[Math.min(below + 1, sorted.length - 1)];
    double part = place - below;
    // From the nearer end, as numpy, so that both round in the same way.
    return part < 0.5 ? low + (high - low) * part : high - (high - low) * (1 - part);
  }
}
