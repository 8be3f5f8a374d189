package com.larqrep.benchmark;

import android.graphics.Typeface;
import android.os.Bundle;
import android.view.Gravity;
import android.view.View;
import android.view.ViewGroup;
import android.widget.TableLayout;
import android.widget.TableRow;
import android.widget.TextView;
import com.larqrep.benchmark.core.Agreement;
import com.larqrep.benchmark.core.BenchmarkResult;
import com.larqrep.benchmark.core.OptionException;
import java.util.List;

/** All networks with the fastest and the portable implementation and several numbers of threads, in one go. */
public final class CompareActivity extends Screen {
  private Task shown;
  private int rows;

  @Override
  protected void onCreate(Bundle state) {
    super.onCreate(state);
    show(R.layout.compare, CompareActivity.class);
    findViewById(R.id.run).setOnClickListener(view -> runOrCancel());
    findViewById(R.id.share).setOnClickListener(view ->
        share(getString(R.string.comparison), summary(session.comparison), document(false)));
    findViewById(R.id.save_csv).setOnClickListener(view -> save(false, "comparison"));
  }

  private void runOrCancel() {
    if (session.running() != null) {
      session.cancel();
      return;
    }
    try {
      session.start(session.options(true), session.sources());
    } catch (OptionException error) {
      tell(error.getMessage()); // The numbers stand on the first screen.
    }
  }

  @Override
  public void changed() {
    super.changed();
    Task task = session.comparison;
    boolean any = task != null && !task.results.results().isEmpty();
    showProgress(task, any ? R.string.again : R.string.compare_all);
    boolean done = task != null && task.isDone();
    boolean failed = task != null && task.state == Task.State.FAILED;
    findViewById(R.id.share).setVisibility(done ? View.VISIBLE : View.GONE);
    findViewById(R.id.save_csv).setVisibility(done ? View.VISIBLE : View.GONE);
    TextView introduction = findViewById(R.id.introduction);
    introduction.setVisibility(any || failed ? View.GONE : View.VISIBLE);
    introduction.setText(getString(R.string.compare_introduction, session.runs, session.warmUp));
    TextView summary = findViewById(R.id.summary);
    summary.setVisibility(done || failed ? View.VISIBLE : View.GONE);
    if (done || failed) {
      String verdict = failed ? Agreement.DIFFERS : task.results.verdict();
      summary.setBackgroundResource(Verdict.card(verdict));
      summary.setText(failed ? task.error : summary(task));
    }
    if (task != shown || (task != null && task.results.results().size() != rows)) {
      shown = task;
      rows = task == null ? 0 : task.results.results().size();
      showTables(task);
    }
  }

  private String summary(Task task) {
    List<BenchmarkResult> results = task.results.results();
    int count = results.size();
    int differing = 0;
    int unknown = 0;
    for (BenchmarkResult result : results) {
      boolean differs = result.agreement().verdict().equals(Agreement.DIFFERS)
          || Boolean.FALSE.equals(task.results.equalsPortable(result));
      differing += differs ? 1 : 0;
      unknown += !differs && result.agreement().verdict().equals(Agreement.NO_REFERENCE) ? 1 : 0;
    }
    return differing > 0 ? getResources().getQuantityString(R.plurals.some_differ, count, differing, count)
        : unknown > 0 ? getResources().getQuantityString(R.plurals.some_unknown, count, count - unknown, count)
        : getResources().getQuantityString(R.plurals.all_agree, count, count);
  }

  private void showTables(Task task) {
    ViewGroup tables = findViewById(R.id.tables);
    tables.removeAllViews();
    TableLayout table = null;
    String network = null;
    if (task == null) {
      return;
    }
    for (BenchmarkResult result : task.results.results()) {
      if (!result.network().equals(network)) {
        network = result.network();
        View card = getLayoutInflater().inflate(R.layout.compare_table, tables, false);
        card.<TextView>findViewById(R.id.name).setText(network);
        table = card.findViewById(R.id.table);
        tables.addView(card);
        TableRow head = new TableRow(this);
        for (int name : new int[] {R.string.implementation, R.string.threads, R.string.median, R.string.outputs}) {
          head.addView(cell(getString(name), R.color.text_quiet, 12, name != R.string.implementation));
        }
        table.addView(head);
      }
      table.addView(row(result, task.results.equalsPortable(result)));
    }
  }

  private TableRow row(BenchmarkResult result, Boolean equalsPortable) {
    TableRow row = new TableRow(this);
    row.setFocusable(true); // TalkBack reads it in one go.
    row.addView(cell(result.implementation(), R.color.text, 16, false));
    row.addView(cell(String.valueOf(result.options().numThreads), R.color.text, 16, true));
    TextView median = cell(Texts.ms(this, result.statistics().median), R.color.text, 16, true);
    median.setTypeface(Typeface.DEFAULT_BOLD);
    row.addView(median);
    boolean otherBits = Boolean.FALSE.equals(equalsPortable);
    String verdict = otherBits ? Agreement.DIFFERS : result.agreement().verdict();
    boolean agreesOnly = otherBits && !result.agreement().verdict().equals(Agreement.DIFFERS);
    row.addView(cell(getString(agreesOnly ? R.string.other_bits : Verdict.word(verdict)), Verdict.colour(verdict), 16,
        true));
    return row;
  }

  private TextView cell(String text, int colour, int size, boolean atEnd) {
    TextView cell = new TextView(this);
    cell.setText(text);
    cell.setTextColor(getColor(colour));
    cell.setTextSize(size);
    cell.setGravity(Gravity.CENTER_VERTICAL | (atEnd ? Gravity.END : Gravity.START));
    int gap = pixels(R.dimen.gap) / 2;
    cell.setPadding(atEnd ? gap : 0, gap, 0, gap);
    return cell;
  }

  @Override
  String document(boolean asJson) {
    Task task = session.comparison;
    return task == null || !task.isDone() ? null : task.csv(session.report());
  }
}
