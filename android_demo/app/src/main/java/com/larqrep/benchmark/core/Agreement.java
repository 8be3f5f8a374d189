package com.larqrep.benchmark.core;

import java.util.Arrays;
import java.util.List;
import org.json.JSONException;
import org.json.JSONObject;

/**
 * Whether outputs are those of the reference.
 *
 * <p>They agree if every number differs by at most a thousandth of its output's range, and if the largest number of the
 * first output stands at the same place. Numbers that are not finite, and outputs of another count or length, differ.
 *
 * <p>A wrong bit among a network's weights may change an output by less than a sign that rounding turns does. But
 * rounding seldom turns one, and a wrong bit is there with every input: with the outputs of several inputs, the median
 * over them of the largest difference also has to be at most 1e-5 of the range, ten times of what rounding makes.
 */
public final class Agreement {
  public static final String AGREES = "agrees";
  public static final String DIFFERS = "differs";
  public static final String NO_REFERENCE = "no reference";
  /** Largest difference, as a share of the range. */
  public static final double TOLERANCE = 1e-3;
  /** The same for the median over several inputs. */
  public static final double MEDIAN_TOLERANCE = 1e-5;

  private final boolean top1;
  private final double maxDifference;
  private final double range;
  private final String verdict;
  private final int inputs;
  private final double median;

  private Agreement(boolean top1, double maxDifference, double range, String verdict, int inputs, double median) {
    this.top1 = top1;
    this.maxDifference = maxDifference;
    this.range = range;
    this.verdict = verdict;
    this.inputs = inputs;
    this.median = median;
  }

  private Agreement(boolean top1, double maxDifference, double range, String verdict) {
    this(top1, maxDifference, range, verdict, verdict.equals(NO_REFERENCE) ? 0 : 1, share(maxDifference, range));
  }

  /**
   * Compares the outputs of one input with those of the reference.
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

  /**
   * The agreement for several inputs.
   *
   * @param each the agreement for each of them, at least one
   */
  static Agreement ofAll(List<Agreement> each) {
    Agreement worst = each.get(0);
    boolean agrees = true;
    boolean top1 = true;
    double[] shares = new double[each.size()];
    for (int i = 0; i < shares.length; i++) {
      Agreement one = each.get(i);
      worst = one.isWorseThan(worst) ? one : worst;
      agrees &= one.verdict.equals(AGREES);
      top1 &= one.top1;
      shares[i] = share(one.maxDifference, one.range);
    }
    Arrays.sort(shares); // NaN comes last.
    double median = shares[(shares.length - 1) / 2];
    agrees &= shares.length == 1 || median <= MEDIAN_TOLERANCE;
    String verdict = worst.verdict.equals(NO_REFERENCE) ? NO_REFERENCE : agrees ? AGREES : DIFFERS;
    return new Agreement(top1, worst.maxDifference, worst.range, verdict, worst.inputs * shares.length, median);
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
    return Double.compare(share(maxDifference, range), share(other.maxDifference, other.range)) > 0;
  }

  /** 0 / 0 is no difference at all; any other NaN is the worst. */
  private static double share(double difference, double range) {
    return difference == 0 ? 0 : difference / range;
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

  /** Whether the largest number of the first output stands at the same place, for every input. */
  public boolean top1() {
    return top1;
  }

  /** Largest difference, in the input and output where it is the largest share of the range; NaN if there is none. */
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

  /** How many inputs were compared. */
  public int inputs() {
    return inputs;
  }

  /** Median over the inputs of the largest difference, as a share of the range. */
  public double medianDifference() {
    return median;
  }

  /**
   * {@code top1}, {@code max_difference}, {@code range}, {@code median_difference} (as a share of the range), {@code
   * inputs} and {@code verdict}; null for what is not known or finite.
   */
  public JSONObject toJson() {
    try {
      return new JSONObject()
          .put("top1", verdict.equals(NO_REFERENCE) ? JSONObject.NULL : (Object) top1)
          .put("max_difference", Json.number(maxDifference))
          .put("range", Json.number(range))
          .put("median_difference", Json.number(median))
          .put("inputs", inputs)
          .put("verdict", verdict);
    } catch (JSONException error) {
      throw new AssertionError(error);
    }
  }
}
