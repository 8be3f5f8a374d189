package com.larqrep.benchmark.core;

import org.json.JSONException;
import org.json.JSONObject;

/**
 * Whether outputs are those of the reference.
 *
 * <p>They agree if every number differs by at most a thousandth of its output's range, and if the largest number of the
 * first output stands at the same place. Numbers that are not finite, and outputs of another count or length, differ.
 */
public final class Agreement {
  public static final String AGREES = "agrees";
  public static final String DIFFERS = "differs";
  public static final String NO_REFERENCE = "no reference";
  /** Largest difference, as a share of the range. */
  public static final double TOLERANCE = 1e-3;

  private final boolean top1;
  private final double maxDifference;
  private final double range;
  private final String verdict;

  private Agreement(boolean top1, double maxDifference, double range, String verdict) {
    this.top1 = top1;
    this.maxDifference = maxDifference;
    this.range = range;
    this.verdict = verdict;
  }

  /**
   * Compares outputs with those of the reference.
   *
   * @param reference null if there is none
   */
  public static Agreement of(float[][] outputs, float[][] reference) {
    if (reference == null) {
      return new Agreement(false, Double.NaN, Double.NaN, NO_REFERENCE);
    }
    Agreement worst = null;
    boolean complete = outputs.length == reference.length && outputs.length > 0;
    for (int i = 0; complete && i < outputs.length; i++) {
      complete = outputs[i].length == reference[i].length && outputs[i].length > 0;
    }
    if (!complete) {
      return new Agreement(false, Double.NaN, Double.NaN, DIFFERS);
    }
    boolean top1 = sameLargest(outputs[0], reference[0]);
    for (int i = 0; i < outputs.length; i++) {
      Agreement one = ofOne(outputs[i], reference[i], top1);
      worst = worst == null || one.isWorseThan(worst) ? one : worst;
    }
    return worst;
  }

  private static Agreement ofOne(float[] output, float[] reference, boolean top1) {
    double low = Double.POSITIVE_INFINITY;
    double high = Double.NEGATIVE_INFINITY;
    double difference = 0;
    for (int i = 0; i < output.length; i++) {
      low = Math.min(low, reference[i]);
      high = Math.max(high, reference[i]);
      difference = Math.max(difference, Math.abs((double) output[i] - reference[i])); // NaN stays.
    }
    // Equal numbers, such as a single one, have no range: their magnitude is taken.
    double range = low == high ? Math.abs(high) : high - low;
    boolean agrees = top1 && difference <= TOLERANCE * range && difference < Double.POSITIVE_INFINITY;
    return new Agreement(top1, difference, range, agrees ? AGREES : DIFFERS);
  }

  private boolean isWorseThan(Agreement other) {
    // 0 / 0 is no difference at all; any other NaN is the worst.
    return Double.compare(maxDifference == 0 ? 0 : maxDifference / range,
        other.maxDifference == 0 ? 0 : other.maxDifference / other.range) > 0;
  }

  /** Of equally large numbers of the reference, any may be the largest of the output. */
  private static boolean sameLargest(float[] output, float[] reference) {
    int place = 0;
    float largest = reference[0];
    for (int i = 0; i < output.length; i++) {
      if (Float.isNaN(output[i])) {
        return false;
      }
      place = output[i] > output[place] ? i : place;
      largest = Math.max(largest, reference[i]);
    }
    return reference[place] == largest;
  }

  /** Whether the largest number of the first output stands at the same place. */
  public boolean top1() {
    return top1;
  }

  /** Largest difference, in the output where it is the largest share of the range; NaN if there is none. */
  public double maxDifference() {
    return maxDifference;
  }

  /** Largest less smallest number of the reference of that output; if all are equal, their magnitude. */
  public double range() {
    return range;
  }

  /** {@link #AGREES}, {@link #DIFFERS} or {@link #NO_REFERENCE}. */
  public String verdict() {
    return verdict;
  }

  /** {@code top1}, {@code max_difference}, {@code range} and {@code verdict}; null for what is not known or finite. */
  public JSONObject toJson() {
    try {
      return new JSONObject()
          .put("top1", verdict.equals(NO_REFERENCE) ? JSONObject.NULL : (Object) top1)
          .put("max_difference", Json.number(maxDifference))
          .put("range", Json.number(range))
          .put("verdict", verdict);
    } catch (JSONException error) {
      throw new AssertionError(error);
    }
  }
}
