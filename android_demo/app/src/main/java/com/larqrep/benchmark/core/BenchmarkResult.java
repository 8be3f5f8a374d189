package com.larqrep.benchmark.core;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/** What a benchmark has measured of a network. */
public final class BenchmarkResult {
  private final ModelFile file;
  private final Options options;
  private final String implementation;
  private final double loadMs;
  private final double firstMs;
  private final double nativeMs;
  private final Statistics statistics;
  private final List<TensorInfo> outputs;
  private final float[][] values;
  private final List<List<Labels.Answer>> largest = new ArrayList<>();
  private final Agreement agreement;

  BenchmarkResult(Model model, Options options, double firstMs, Statistics statistics, double nativeMs,
      Reference reference) throws EngineException {
    this.file = model.file();
    this.options = options;
    this.implementation = model.implementation();
    this.loadMs = model.loadMs();
    this.firstMs = firstMs;
    this.statistics = statistics;
    this.nativeMs = nativeMs;
    outputs = model.outputs();
    values = model.values();
    agreement = Agreement.of(values, reference == null ? null : reference.outputs());
    try {
      Labels labels = Labels.of(file.metadata(), model.inputs(), outputs);
      for (int i = 0; i < values.length; i++) {
        largest.add(labels.largest(values[i], outputs.get(i), model.inputs(), options.top));
      }
    } catch (IllegalArgumentException error) {
      throw new EngineException(error.getMessage(), error);
    }
  }

  /** Name of the network. */
  public String network() {
    return file.network();
  }

  /** The options with which it ran. */
  public Options options() {
    return options;
  }

  /** The instruction set with which the delegate ran. */
  public String implementation() {
    return implementation;
  }

  /** Milliseconds in which the network was made ready. */
  public double loadMs() {
    return loadMs;
  }

  /** Milliseconds of the first run. */
  public double firstMs() {
    return firstMs;
  }

  /** Median of the milliseconds that TFLite itself measured of the timed runs. */
  public double nativeMs() {
    return nativeMs;
  }

  /** Milliseconds of the timed runs. */
  public Statistics statistics() {
    return statistics;
  }

  /** How many operators of Larq Compute Engine the file has. */
  public int lceOperators() {
    return file.lceOperators();
  }

  /** Whether the outputs are those of the reference. */
  public Agreement agreement() {
    return agreement;
  }

  /** The largest numbers of the first output, as many as the options say. */
  public List<Labels.Answer> top() {
    return largest.isEmpty() ? Collections.<Labels.Answer>emptyList() : largest.get(0);
  }

  /** Whether all outputs have the same bits as another's. */
  boolean equalsBitForBit(BenchmarkResult other) {
    boolean same = values.length == other.values.length;
    for (int i = 0; same && i < values.length; i++) {
      same = java.util.Arrays.equals(values[i], other.values[i]);
    }
    return same;
  }

  /**
   * The report, with the keys of {@code lce-run --json} and more.
   *
   * @param thermal state of the device "before" and "after"
   */
  public JSONObject toJson(Report report, JSONObject thermal) {
    try {
      JSONObject object = measured().put("thermal", thermal);
      return report.complete(new JSONObject().put("schema", 1).put("status", "ok")).length() == 0 ? null
          : report.complete(object);
    } catch (JSONException error) {
      throw new AssertionError(error);
    }
  }

  JSONObject measured() throws JSONException {
    return new JSONObject();
  }

  /** A table of the runs, after lines with # that say what ran. */
  public String toCsv() {
    return String.format(Locale.ROOT, "%s", file.network());
  }
}
