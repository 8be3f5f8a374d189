package com.larqrep.benchmark.core;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
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
      same = Arrays.equals(values[i], other.values[i]); // Arrays compares the bits of floats.
    }
    return same;
  }

  /**
   * The report, with the keys of {@code lce-run --json} and more. Times are in milliseconds.
   *
   * @param report where it ran
   * @param thermal state of the device "before" and "after"; null if nothing is known
   */
  public JSONObject toJson(Report report, JSONObject thermal) {
    try {
      return report.complete(toJson(thermal));
    } catch (JSONException error) {
      throw new AssertionError(error);
    }
  }

  /** The report without where it ran. */
  JSONObject toJson(JSONObject thermal) throws JSONException {
    JSONArray answers = new JSONArray();
    for (int i = 0; i < values.length; i++) {
      answers.put(new JSONObject()
          .put("name", outputs.get(i).name)
          .put("shape", Json.numbers(outputs.get(i).shape()))
          .put("top", top(i)));
    }
    return new JSONObject()
        .put("schema", 1)
        .put("status", "ok")
        .put("network", file.network())
        .put("file", file.file())
        .put("bytes", file.bytes())
        .put("implementation", implementation)
        .put("num_threads", options.numThreads)
        .put("fuse", options.fuse)
        .put("warmup_runs", options.warmupRuns)
        .put("num_runs", options.numRuns)
        .put("load_ms", loadMs)
        .put("first_ms", firstMs)
        .put("median_ms", statistics.median)
        .put("p10_ms", statistics.p10)
        .put("p90_ms", statistics.p90)
        .put("min_ms", statistics.min)
        .put("native_ms", nativeMs)
        .put("runs_ms", Json.numbers(statistics.runs()))
        .put("lce_operators", file.lceOperators())
        .put("top", values.length == 0 ? new JSONArray() : top(0))
        .put("outputs", answers)
        .put("agreement", agreement.toJson())
        .put("thermal", thermal == null ? JSONObject.NULL : thermal);
  }

  private JSONArray top(int output) {
    JSONArray array = new JSONArray();
    for (Labels.Answer answer : largest.get(output)) {
      array.put(answer.toJson());
    }
    return array;
  }

  /**
   * A table of the runs in order, after lines with # that say what ran and where.
   *
   * @param report where it ran
   */
  public String toCsv(Report report) {
    double[] runs = statistics.runs();
    StringBuilder text = new StringBuilder(report.csvHeader());
    text.append(Csv.comment("network", file.network())).append(Csv.comment("file", file.file()))
        .append(Csv.comment("implementation", implementation)).append(Csv.comment("num_threads", options.numThreads))
        .append(Csv.comment("fuse", options.fuse)).append(Csv.comment("warmup_runs", options.warmupRuns))
        .append(Csv.comment("verdict", agreement.verdict())).append(Csv.line("run", "ms"));
    for (int i = 0; i < runs.length; i++) {
      text.append(Csv.line(i + 1, runs[i]));
    }
    return text.toString();
  }
}
