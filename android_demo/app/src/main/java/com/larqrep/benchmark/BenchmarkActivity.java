package com.larqrep.benchmark;

import android.content.Intent;
import android.os.Bundle;
import android.text.Editable;
import android.text.SpannableStringBuilder;
import android.text.TextWatcher;
import android.text.style.ForegroundColorSpan;
import android.text.style.RelativeSizeSpan;
import android.view.View;
import android.widget.AdapterView;
import android.widget.ArrayAdapter;
import android.widget.EditText;
import android.widget.RadioButton;
import android.widget.RadioGroup;
import android.widget.Spinner;
import android.widget.Switch;
import android.widget.TextView;
import com.larqrep.benchmark.core.Comparison;
import com.larqrep.benchmark.core.Network;
import com.larqrep.benchmark.core.OptionException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.function.Consumer;

/**
 * The first screen: which network to run, and how.
 *
 * <p>Started with the text {@code args}, as by {@code am start}, it runs what that says without anybody's doing, writes
 * the report and ends.
 */
public final class BenchmarkActivity extends Screen {
  private static final String ARGUMENTS = "args";
  private static final int OPEN = 1;

  @Override
  protected void onCreate(Bundle state) {
    super.onCreate(state);
    show(R.layout.benchmark, BenchmarkActivity.class);
    List<Integer> threads = Comparison.threads(DeviceInfo.cores());
    choose(R.id.threads, threads, threads.indexOf(session.numThreads), i -> session.numThreads = threads.get(i));
    List<String> names = new ArrayList<>(session.implementations());
    List<String> entries = new ArrayList<>(names);
    entries.add(0, names.isEmpty() ? getString(R.string.fastest) : getString(R.string.fastest_is, names.get(0)));
    choose(R.id.implementation, entries, names.indexOf(session.implementation) + 1,
        i -> session.implementation = i == 0 ? null : names.get(i - 1));
    type(R.id.runs, session.runs, text -> session.runs = text);
    type(R.id.warm_up, session.warmUp, text -> session.warmUp = text);
    Switch fuse = findViewById(R.id.fuse);
    fuse.setChecked(session.fuse);
    fuse.setOnCheckedChangeListener((view, checked) -> session.fuse = checked);
    findViewById(R.id.open).setOnClickListener(view ->
        ask(new Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("*/*"), OPEN));
    findViewById(R.id.run).setOnClickListener(view -> runOrCancel());
    findViewById(R.id.last).setOnClickListener(view -> startActivity(new Intent(this, ResultActivity.class)));
    showNetworks();
    if (isAutomatic() && state == null) {
      session.start(getIntent().getStringExtra(ARGUMENTS));
    }
  }

  private boolean isAutomatic() {
    return getIntent().hasExtra(ARGUMENTS);
  }

  private <T> void choose(int id, List<T> entries, int chosen, Consumer<Integer> choice) {
    ArrayAdapter<T> adapter = new ArrayAdapter<>(this, android.R.layout.simple_spinner_item, entries);
    adapter.setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item);
    Spinner spinner = findViewById(id);
    spinner.setSaveEnabled(false);
    spinner.setAdapter(adapter);
    spinner.setSelection(Math.max(0, chosen), false);
    spinner.setOnItemSelectedListener(new AdapterView.OnItemSelectedListener() {
      @Override
      public void onItemSelected(AdapterView<?> parent, View view, int position, long row) {
        choice.accept(position);
      }

      @Override
      public void onNothingSelected(AdapterView<?> parent) {}
    });
  }

  private void type(int id, String text, Consumer<String> choice) {
    EditText field = findViewById(id);
    field.setText(text);
    field.addTextChangedListener(new TextWatcher() {
      @Override
      public void beforeTextChanged(CharSequence before, int start, int count, int after) {}

      @Override
      public void onTextChanged(CharSequence now, int start, int before, int count) {}

      @Override
      public void afterTextChanged(Editable now) {
        choice.accept(now.toString());
      }
    });
  }

  private void showNetworks() {
    RadioGroup group = findViewById(R.id.networks);
    group.setOnCheckedChangeListener(null);
    group.removeAllViews();
    List<Source> sources = session.sources();
    Source chosen = session.chosen();
    for (Source source : sources) {
      RadioButton button = new RadioButton(this);
      button.setId(View.generateViewId());
      button.setText(description(source));
      button.setTextSize(16);
      button.setMinHeight(pixels(R.dimen.touch));
      button.setPadding(pixels(R.dimen.gap), 0, 0, 0);
      button.setLayoutParams(new RadioGroup.LayoutParams(RadioGroup.LayoutParams.MATCH_PARENT,
          RadioGroup.LayoutParams.WRAP_CONTENT));
      group.addView(button);
      button.setChecked(source.model.equals(chosen.model));
      button.setOnClickListener(view -> session.model = source.model);
    }
  }

  /** Its name, and below it size, work and what it knows. */
  private CharSequence description(Source source) {
    SpannableStringBuilder text = new SpannableStringBuilder(source.name).append('\n');
    int start = text.length();
    Network network = source.network;
    text.append(Texts.bytes(this, source.bytes()));
    if (network == null) {
      text.append(getString(R.string.opened_file));
    } else {
      if (network.macs > 0) {
        text.append(getString(R.string.macs, Texts.count(this, network.macs)));
      }
      text.append(network.trained ? getString(R.string.trained_on, network.data) : getString(R.string.untrained));
    }
    text.setSpan(new RelativeSizeSpan(0.875f), start, text.length(), 0);
    text.setSpan(new ForegroundColorSpan(getColor(R.color.text_quiet)), start, text.length(), 0);
    return text;
  }

  private void runOrCancel() {
    if (session.running() != null) {
      session.cancel();
      return;
    }
    try {
      Source source = session.chosen();
      if (source != null) {
        session.start(session.options(false), Collections.singletonList(source));
      }
    } catch (OptionException error) {
      session.problem = error.getMessage();
      changed();
    }
  }

  @Override
  public void changed() {
    super.changed();
    Task last = session.benchmark;
    if (isAutomatic() && session.running() == null) {
      getWindow().getDecorView().post(this::finish); // Not before am start has seen the screen.
    }
    showProgress(last, R.string.run);
    boolean failed = last != null && last.state == Task.State.FAILED;
    show(R.id.failure, session.problem != null || failed);
    this.<TextView>findViewById(R.id.failure_title).setText(
        session.problem != null ? R.string.not_started : R.string.failed);
    this.<TextView>findViewById(R.id.failure_text).setText(session.problem != null ? session.problem
        : failed ? last.error : "");
    String warning = session.warning();
    show(R.id.notice, warning != null);
    this.<TextView>findViewById(R.id.notice).setText(warning);
    show(R.id.last, session.running() == null && last != null && last.isDone());
    RadioGroup group = findViewById(R.id.networks);
    if (group.getChildCount() != session.sources().size()) {
      showNetworks();
    }
    if (session.unseen) {
      session.unseen = false;
      startActivity(new Intent(this, ResultActivity.class));
    }
  }

  private void show(int id, boolean visible) {
    View view = findViewById(id);
    if ((view.getVisibility() == View.VISIBLE) != visible) {
      view.setVisibility(visible ? View.VISIBLE : View.GONE);
      if (id == R.id.failure) {
        findViewById(R.id.scroll).scrollTo(0, 0);
      }
    }
  }

  @Override
  protected void onActivityResult(int request, int result, Intent data) {
    if (request == OPEN && result == RESULT_OK && data != null && data.getData() != null) {
      session.open(data.getData());
    }
    super.onActivityResult(request, result, data);
  }
}
