package com.larqrep.benchmark;

import com.larqrep.benchmark.core.BenchmarkResult;
import com.larqrep.benchmark.core.Comparison;
import com.larqrep.benchmark.core.Options;
import com.larqrep.benchmark.core.Report;
import java.util.concurrent.atomic.AtomicBoolean;
import org.json.JSONException;
import org.json.JSONObject;

/** A benchmark or a comparison: going on, or what became of it. */
final class Task {
  /** How it stands. */
  enum State { RUNNING, DONE, FAILED, CANCELLED }

  final Options options;
  final AtomicBoolean cancel = new AtomicBoolean();
  /** What it does at the moment, and how many of all runs it has done: set by the thread of the session. */
  volatile String step = "";
  volatile int done;
  volatile int total;
  /** How it stands; like all that follows, for the main thread. */
  State state = State.RUNNING;
  /** Why it failed. */
  String error;
  /** The results so far; a benchmark has one. */
  final Comparison results = new Comparison();
  /** Heat before and after the last result. */
  JSONObject before;
  JSONObject after;

  Task(Options options) {
    this.options = options;
  }

  boolean isDone() {
    return state == State.DONE;
  }

  void add(BenchmarkResult result, JSONObject heatBefore, JSONObject heatAfter) {
    before = heatBefore;
    after = heatAfter;
    results.add(result, thermal());
  }

  /** The result of a benchmark that is done. */
  BenchmarkResult result() {
    return results.results().get(0);
  }

  private JSONObject thermal() {
    try {
      return new JSONObject().put("before", before).put("after", after);
    } catch (JSONException impossible) {
      throw new AssertionError(impossible);
    }
  }

  /** All of it for other programs. */
  JSONObject json(Report report) {
    switch (state) {
      case FAILED:
        return report.error(error);
      case CANCELLED:
        return report.cancelled();
      default:
        return options.compare ? results.toJson(report) : result().toJson(report, thermal());
    }
  }

  /** A table of it. */
  String csv(Report report) {
    return options.compare ? results.toCsv(report) : result().toCsv(report);
  }
}
