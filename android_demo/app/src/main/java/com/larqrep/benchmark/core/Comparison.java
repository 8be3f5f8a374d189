package com.larqrep.benchmark.core;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/** A table of results: networks, implementations and numbers of threads. */
public final class Comparison {
  private static final String PORTABLE = "portable";

  private final List<BenchmarkResult> results = new ArrayList<>();
  private final List<JSONObject> thermals = new ArrayList<>();

  /**
   * The options with which each network is run: the best implementation and portable, each with 1, 2, 4, ... threads.
   *
   * @param options the numbers of runs, and all else that is the same in all
   * @param implementations those of the processor, the fastest first
   * @param cores how many cores the processor has
   */
  public static List<Options> plan(Options options, List<String> implementations, int cores) {
    List<Options> plan = new ArrayList<>();
    for (String implementation : new LinkedHashSet<>(Arrays.asList(implementations.get(0), PORTABLE))) {
      for (int threads : threads(cores)) {
        plan.add(new Options.Builder(options).setImplementation(implementation).setNumThreads(threads).build());
      }
    }
    return plan;
  }

  /** 1, 2, 4, ... up to the number of cores, at most 64. */
  public static List<Integer> threads(int cores) {
    List<Integer> threads = new ArrayList<>();
    for (int count = 1; count == 1 || count <= Math.min(cores, Options.MAX_THREADS); count *= 2) {
      threads.add(count);
    }
    return threads;
  }

  /**
   * Adds a line.
   *
   * @param thermal state of the device "before" and "after"; null if nothing is known
   */
  public void add(BenchmarkResult result, JSONObject thermal) {
    results.add(result);
    thermals.add(thermal);
  }

  /** The results so far. */
  public List<BenchmarkResult> results() {
    return new ArrayList<>(results);
  }

  /**
   * Whether the outputs of a result equal those of the implementation portable bit for bit; null if the network has not
   * been run with portable.
   */
  public Boolean equalsPortable(BenchmarkResult result) {
    for (BenchmarkResult other : results) {
      if (other.implementation().equals(PORTABLE) && other.network().equals(result.network())) {
        return result.equalsBitForBit(other);
      }
    }
    return null;
  }

  /**
   * "differs" if any result differs from its reference or from portable, otherwise "agrees", or "no reference" if none
   * has one.
   */
  public String verdict() {
    String verdict = Agreement.NO_REFERENCE;
    for (BenchmarkResult result : results) {
      if (result.agreement().verdict().equals(Agreement.DIFFERS) || Boolean.FALSE.equals(equalsPortable(result))) {
        return Agreement.DIFFERS;
      }
      verdict = result.agreement().verdict().equals(Agreement.AGREES) ? Agreement.AGREES : verdict;
    }
    return verdict;
  }

  /**
   * The report: under "compare" one for each result, with "equals_portable", and the verdict on all.
   *
   * @param report where they ran
   */
  public JSONObject toJson(Report report) {
    try {
      JSONArray compare = new JSONArray();
      for (int i = 0; i < results.size(); i++) {
        Boolean same = equalsPortable(results.get(i));
        JSONObject one = results.get(i).toJson(thermals.get(i));
        compare.put(one.put("equals_portable", same == null ? JSONObject.NULL : same));
      }
      return report.complete(new JSONObject().put("schema", 1).put("status", "ok").put("compare", compare)
          .put("verdict", verdict()));
    } catch (JSONException error) {
      throw new AssertionError(error);
    }
  }

  /**
   * A table with a line for each result, after lines with # that say where they ran. Times are in milliseconds.
   *
   * @param report where they ran
   */
  public String toCsv(Report report) {
    StringBuilder text = new StringBuilder(report.csvHeader());
    text.append(Csv.line("network", "implementation", "num_threads", "fuse", "num_runs", "load_ms", "first_ms",
        "median_ms", "p10_ms", "p90_ms", "min_ms", "native_ms", "verdict", "max_difference", "range",
        "equals_portable"));
    for (BenchmarkResult result : results) {
      Statistics statistics = result.statistics();
      Agreement agreement = result.agreement();
      Boolean same = equalsPortable(result);
      text.append(Csv.line(result.network(), result.implementation(), result.options().numThreads,
          result.options().fuse, result.options().numRuns, result.loadMs(), result.firstMs(), statistics.median,
          statistics.p10, statistics.p90, statistics.min, result.nativeMs(), agreement.verdict(),
          agreement.maxDifference(), agreement.range(), same == null ? "" : same));
    }
    return text.toString();
  }
}
