package com.larqrep.benchmark.core;

import java.util.ArrayList;
import java.util.List;
import org.json.JSONObject;

/** A table of results: networks, implementations and threads. */
public final class Comparison {
  private final List<BenchmarkResult> results;

  /**
   * Compares results; those of the same network with the implementation portable should be equal bit for bit.
   */
  public Comparison(List<BenchmarkResult> results) {
    this.results = new ArrayList<>(results);
  }

  /**
   * The options with which each network is run: the best implementation and portable, each with 1, 2, 4, ... threads.
   *
   * @param options the number of runs, and all else that is the same for all
   * @param implementations those of the processor, the fastest first
   * @param cores how many cores the processor has
   */
  public static List<Options> plan(Options options, List<String> implementations, int cores) {
    return new ArrayList<>();
  }

  /** 1, 2, 4, ... up to the number of cores. */
  public static List<Integer> threads(int cores) {
    return new ArrayList<>();
  }

  /** Whether a result equals that of the implementation portable bit for bit; null if that was not run. */
  public Boolean equalsPortable(BenchmarkResult result) {
    return null;
  }

  /** "differs" if any result differs from its reference or from portable; "agrees" if none does. */
  public String verdict() {
    return Agreement.AGREES;
  }

  public JSONObject toJson(Report report, JSONObject thermal) {
    return new JSONObject();
  }

  /** A table with a line for each result. */
  public String toCsv() {
    return "";
  }
}
