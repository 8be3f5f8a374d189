package com.larqrep.benchmark;

import com.larqrep.benchmark.core.BenchmarkResult;
import com.larqrep.benchmark.core.Comparison;
import com.larqrep.benchmark.core.Options;
import com.larqrep.benchmark.core.Report;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import org.json.JSONException;
import org.json.JSONObject;

/** A benchmark or a comparison: going on, or what became of it. */
final class Task {
  /** How it stands. */
  enum State { RUNNING, DONE, FAILED, CANCELLED }

  final Options options;
  final AtomicBoolean cancel = new AtomicBoolean();
  final List<BenchmarkResult> results = new ArrayList<>();
  /** What it does at the moment, and how many of all runs it has done: set by the thread of the session. */
  volatile String step = "";
  volatile int done;
  volatile int total;
  /** How it stands; like all that follows, for the main thread. */
  State state = State.RUNNING;
  /** Why it failed. */
  String error;
  /** Heat before and after. */
  JSONObject before;
  JSONObject after;

  Task(Options options) {
    this.options = options;
  }

  void end(State end, String reason, JSONObject heatBefore, JSONObject heatAfter) {
    state = end;
    error = reason;
    before = heatBefore;
    after = heatAfter;
  }

  /** The result of a benchmark that is done. */
  BenchmarkResult result() {
    return results.get(0);
  }

  /** All of it for other programs. */
  JSONObject json(Report report) {
    switch (state) {
      case FAILED:
        return report.error(error);
      case CANCELLED:
        return report.cancelled();
      default:
        JSONObject thermal = new JSONObject();
        try {
          thermal.put("before", before).put("after", after);
        } catch (JSONException impossible) {
          throw new AssertionError(impossible);
        }
        return options.compare ? new Comparison(results).toJson(report, thermal) : result().toJson(report, thermal);
    }
  }

  /** A table of it. */
  String csv() {
    return options.compare ? new Comparison(results).toCsv() : result().toCsv();
  }
}
