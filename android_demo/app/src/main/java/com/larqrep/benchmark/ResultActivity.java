package com.larqrep.benchmark;

import android.os.Bundle;
import android.view.View;
import android.view.ViewGroup;
import android.widget.ImageView;
import android.widget.TextView;
import com.larqrep.benchmark.core.Agreement;
import com.larqrep.benchmark.core.BenchmarkResult;
import com.larqrep.benchmark.core.Options;
import com.larqrep.benchmark.core.Statistics;
import org.json.JSONObject;

/** How fast the last benchmark was, and whether its outputs are right. */
public final class ResultActivity extends Screen {
  @Override
  protected void onCreate(Bundle state) {
    super.onCreate(state);
    show(R.layout.result, BenchmarkActivity.class);
    Task task = session.benchmark;
    if (task == null || !task.isDone()) {
      finish(); // Android has ended the process meanwhile, and the result with it.
      return;
    }
    BenchmarkResult result = task.result();
    arrange(findViewById(R.id.answers), isLandscape(), pixels(R.dimen.gap));
    showAnswers(result);
    showNumbers(task, result);
    findViewById(R.id.share).setOnClickListener(view -> share(summary(result), summary(result),
        document(true)));
    findViewById(R.id.save_json).setOnClickListener(view -> save(true, result.network()));
    findViewById(R.id.save_csv).setOnClickListener(view -> save(false, result.network()));
  }

  private void showAnswers(BenchmarkResult result) {
    Statistics statistics = result.statistics();
    String median = Texts.ms(this, statistics.median);
    int runs = statistics.runs().length;
    String settings = getResources().getQuantityString(R.plurals.median_of, runs, runs) + "\n" + settings(result);
    this.<TextView>findViewById(R.id.median).setText(median);
    this.<TextView>findViewById(R.id.settings).setText(settings);
    findViewById(R.id.speed).setContentDescription(getString(R.string.speed_spoken, median, settings));
    Agreement agreement = result.agreement();
    int word = Verdict.word(agreement.verdict());
    String text = explanation(agreement);
    this.<TextView>findViewById(R.id.verdict_word).setText(word);
    this.<TextView>findViewById(R.id.verdict_text).setText(text);
    this.<ImageView>findViewById(R.id.verdict_sign).setImageResource(Verdict.sign(agreement.verdict()));
    View verdict = findViewById(R.id.verdict);
    verdict.setBackgroundResource(Verdict.card(agreement.verdict()));
    verdict.setContentDescription(getString(R.string.verdict_spoken, getString(word), text));
  }

  private String explanation(Agreement agreement) {
    switch (agreement.verdict()) {
      case Agreement.AGREES:
        return getString(R.string.agrees_text, Texts.small(agreement.maxDifference()), Texts.digits(agreement.range()));
      case Agreement.DIFFERS:
        String text = Double.isNaN(agreement.maxDifference()) ? getString(R.string.differs_count)
            : getString(R.string.differs_text, Texts.small(agreement.maxDifference()),
                Texts.digits(agreement.range()));
        return text + getString(agreement.top1() ? R.string.same_top : R.string.other_top);
      default:
        return getString(R.string.unknown_text);
    }
  }

  private String settings(BenchmarkResult result) {
    int threads = result.options().numThreads;
    return getString(R.string.settings, result.network(),
        getResources().getQuantityString(R.plurals.threads, threads, threads), result.implementation());
  }

  private String summary(BenchmarkResult result) {
    return getString(R.string.summary, settings(result), Texts.ms(this, result.statistics().median),
        getString(Verdict.word(result.agreement().verdict())));
  }

  private void showNumbers(Task task, BenchmarkResult result) {
    Statistics statistics = result.statistics();
    StripChart chart = findViewById(R.id.chart);
    chart.setRuns(statistics.runs(), statistics.median);
    ViewGroup times = findViewById(R.id.times);
    int[] names = {R.string.load, R.string.first, R.string.min, R.string.p10, R.string.median, R.string.p90,
        R.string.native_median};
    double[] values = {result.loadMs(), result.firstMs(), statistics.min, statistics.p10, statistics.median,
        statistics.p90, result.nativeMs()};
    for (int i = 0; i < names.length; i++) {
      line(times, getString(names[i]), Texts.ms(this, values[i]));
    }
    chart.setContentDescription(getResources().getQuantityString(R.plurals.chart_spoken, statistics.runs().length,
        statistics.runs().length, Texts.ms(this, statistics.p10), Texts.ms(this, statistics.p90)));
    ViewGroup measured = findViewById(R.id.measured);
    Options options = result.options();
    line(measured, getString(R.string.network), result.network());
    line(measured, getString(R.string.lce_operators), result.lceOperators() == 0 ? getString(R.string.no_lce_operators)
        : String.valueOf(result.lceOperators()));
    line(measured, getString(R.string.implementation), result.implementation());
    line(measured, getString(R.string.threads), String.valueOf(options.numThreads));
    line(measured, getString(R.string.fuse), getString(options.fuse ? R.string.yes : R.string.no));
    line(measured, getString(R.string.runs), getString(R.string.runs_and_warm_up, options.numRuns, options.warmupRuns));
    line(measured, getString(R.string.battery), getString(R.string.from_to, celsius(task.before), celsius(task.after)));
    line(measured, getString(R.string.thermal_status),
        getString(R.string.from_to, status(task.before), status(task.after)));
  }

  private String celsius(JSONObject heat) {
    double celsius = heat.optDouble("battery_celsius");
    return Double.isNaN(celsius) ? getString(R.string.not_known) : getString(R.string.celsius, Texts.digits(celsius));
  }

  private String status(JSONObject heat) {
    return Texts.thermalStatus(this, heat.optInt("status", Newer.UNKNOWN));
  }

  @Override
  String document(boolean asJson) {
    Task task = session.benchmark;
    return task == null || !task.isDone() ? null
        : asJson ? task.json(session.report()).toString() : task.csv(session.report());
  }
}
