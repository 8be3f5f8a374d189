package com.larqrep.benchmark;

import android.app.ActionBar;
import android.app.Activity;
import android.content.ActivityNotFoundException;
import android.content.Intent;
import android.content.res.ColorStateList;
import android.content.res.Configuration;
import android.graphics.Typeface;
import android.net.Uri;
import android.os.Bundle;
import android.view.View;
import android.view.ViewGroup;
import android.view.WindowManager;
import android.widget.Button;
import android.widget.ImageView;
import android.widget.LinearLayout;
import android.widget.ProgressBar;
import android.widget.TextView;
import android.widget.Toast;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;

/** What all screens share: the way to the others, and that they follow the session while they are seen. */
abstract class Screen extends Activity implements Session.Observer {
  private static final Object[][] SCREENS = {
    {BenchmarkActivity.class, R.string.benchmark, R.drawable.benchmark},
    {CompareActivity.class, R.string.compare, R.drawable.compare},
    {TryActivity.class, R.string.try_it, R.drawable.try_it},
    {DeviceActivity.class, R.string.device, R.drawable.device},
  };
  /** Requests to save; the others have numbers of their own. */
  private static final int SAVE_JSON = 101;
  private static final int SAVE_CSV = 102;
  /** Letters; an intent has room for half a million, and what does not fit would end the app. */
  private static final int MOST_SHARED = 100_000;

  Session session;

  @Override
  protected void onCreate(Bundle state) {
    super.onCreate(state);
    session = Session.of(this);
    session.restore(state);
  }

  @Override
  protected void onSaveInstanceState(Bundle state) {
    super.onSaveInstanceState(state);
    session.save(state);
  }

  /** Fills the screen, with the entry of {@code section} marked. */
  void show(int layout, Class<?> section) {
    setContentView(R.layout.screen);
    getLayoutInflater().inflate(layout, findViewById(R.id.content));
    ActionBar bar = getActionBar();
    if (bar != null) {
      bar.setDisplayHomeAsUpEnabled(getClass() != section);
    }
    ViewGroup navigation = findViewById(R.id.navigation);
    for (Object[] screen : SCREENS) {
      navigation.addView(
          entry(navigation, (Class<?>) screen[0], (int) screen[1], (int) screen[2], screen[0] == section));
    }
  }

  private View entry(ViewGroup navigation, Class<?> screen, int name, int sign, boolean here) {
    LinearLayout entry = (LinearLayout) getLayoutInflater().inflate(R.layout.entry, navigation, false);
    entry.setOrientation(isLandscape() ? LinearLayout.HORIZONTAL : LinearLayout.VERTICAL);
    entry.setSelected(here);
    entry.setOnClickListener(view -> go(screen));
    int colour = getColor(here ? R.color.accent : R.color.text_quiet);
    ImageView image = entry.findViewById(R.id.sign);
    image.setImageResource(sign);
    image.setImageTintList(ColorStateList.valueOf(colour));
    TextView text = entry.findViewById(R.id.name);
    text.setText(name);
    text.setTextColor(colour);
    text.setTypeface(here ? Typeface.DEFAULT_BOLD : Typeface.DEFAULT);
    return entry;
  }

  private void go(Class<?> screen) {
    if (screen != getClass()) {
      // Of each screen there is one; the first one stays below the others for Back.
      startActivity(new Intent(this, screen)
          .addFlags(Intent.FLAG_ACTIVITY_CLEAR_TOP | Intent.FLAG_ACTIVITY_SINGLE_TOP));
      if (getClass() != BenchmarkActivity.class) {
        finish();
      }
    }
  }

  boolean isLandscape() {
    return getResources().getConfiguration().orientation == Configuration.ORIENTATION_LANDSCAPE;
  }

  /** Puts the children of a layout side by side, in equal parts, or one below the other. */
  void arrange(LinearLayout layout, boolean sideBySide, int gap) {
    layout.setOrientation(sideBySide ? LinearLayout.HORIZONTAL : LinearLayout.VERTICAL);
    for (int i = 0; i < layout.getChildCount(); i++) {
      LinearLayout.LayoutParams params = (LinearLayout.LayoutParams) layout.getChildAt(i).getLayoutParams();
      params.width = sideBySide ? 0 : ViewGroup.LayoutParams.MATCH_PARENT;
      params.weight = sideBySide ? 1 : 0;
      params.setMarginStart(sideBySide && i > 0 ? gap : 0);
      params.topMargin = sideBySide || i == 0 ? 0 : gap;
      layout.getChildAt(i).setLayoutParams(params);
    }
  }

  int pixels(int dimension) {
    return getResources().getDimensionPixelSize(dimension);
  }

  @Override
  protected void onStart() {
    super.onStart();
    session.add(this);
    changed();
  }

  @Override
  protected void onStop() {
    session.remove(this);
    super.onStop();
  }

  /** Called on the main thread after each change of the session, and when the screen comes to be seen. */
  @Override
  public void changed() {
    boolean measuring = session.running() != null;
    int flag = WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON;
    getWindow().setFlags(measuring ? flag : 0, flag);
    if (session.canSustain()) {
      getWindow().setSustainedPerformanceMode(measuring);
    }
  }

  /** Shows how far the running task is, and whether the button starts or cancels. */
  void showProgress(Task last, int start) {
    Task task = session.running();
    boolean cancelling = task != null && task.cancel.get();
    boolean cancelled = task == null && last != null && last.state == Task.State.CANCELLED;
    findViewById(R.id.progress).setVisibility(task != null || cancelled ? View.VISIBLE : View.GONE);
    ProgressBar bar = findViewById(R.id.progress_bar);
    bar.setVisibility(task != null ? View.VISIBLE : View.GONE);
    TextView text = findViewById(R.id.progress_text);
    if (task == null) {
      text.setText(R.string.cancelled);
    } else {
      bar.setIndeterminate(task.total == 0);
      bar.setMax(task.total);
      bar.setProgress(task.done);
      text.setText(getString(R.string.progress, task.step, task.total == 0 ? getString(R.string.loading)
          : getResources().getQuantityString(R.plurals.of_runs, task.total, task.done, task.total)));
    }
    Button run = findViewById(R.id.run);
    run.setText(cancelling ? R.string.cancelling : task != null ? R.string.cancel : start);
    run.setEnabled(!cancelling);
  }

  /** A line with a name and a value at the end of a list. */
  void line(ViewGroup list, CharSequence name, CharSequence value) {
    View line = getLayoutInflater().inflate(R.layout.line, list, false);
    line.<TextView>findViewById(R.id.name).setText(name);
    line.<TextView>findViewById(R.id.value).setText(value);
    list.addView(line);
  }

  /** Starts another app's screen; if there is none, says so. */
  void ask(Intent intent, int request) {
    try {
      startActivityForResult(intent, request);
    } catch (ActivityNotFoundException | SecurityException none) {
      tell(getString(R.string.no_app));
    }
  }

  void tell(String message) {
    Toast.makeText(this, message, Toast.LENGTH_LONG).show();
  }

  /** Hands a summary and, if it is not too long for Android's hands, a document to another app. */
  void share(String subject, String summary, String document) {
    String text = summary + "\n\n"
        + (document.length() <= MOST_SHARED ? document : getString(R.string.too_long_to_share));
    Intent send = new Intent(Intent.ACTION_SEND)
        .setType("text/plain")
        .putExtra(Intent.EXTRA_SUBJECT, subject)
        .putExtra(Intent.EXTRA_TEXT, text);
    startActivity(Intent.createChooser(send, getString(R.string.share)));
  }

  void save(boolean asJson, String name) {
    ask(new Intent(Intent.ACTION_CREATE_DOCUMENT)
        .addCategory(Intent.CATEGORY_OPENABLE)
        .setType(asJson ? "application/json" : "text/csv")
        .putExtra(Intent.EXTRA_TITLE, name + (asJson ? ".json" : ".csv")), asJson ? SAVE_JSON : SAVE_CSV);
  }

  /** What is saved as JSON or CSV; null if there is nothing any more. */
  String document(boolean asJson) {
    return null;
  }

  @Override
  protected void onActivityResult(int request, int result, Intent data) {
    if ((request != SAVE_JSON && request != SAVE_CSV) || result != RESULT_OK || data == null) {
      return;
    }
    String text = document(request == SAVE_JSON);
    Uri uri = data.getData();
    if (text == null || uri == null) {
      tell(getString(R.string.not_saved, getString(R.string.result_is_gone)));
      return;
    }
    try (OutputStream stream = getContentResolver().openOutputStream(uri, "wt")) {
      if (stream == null) {
        throw new IOException(uri.toString());
      }
      stream.write(text.getBytes(StandardCharsets.UTF_8));
      tell(getString(R.string.saved));
    } catch (IOException | RuntimeException error) { // The other app's code may throw anything.
      tell(getString(R.string.not_saved, Texts.of(error)));
    }
  }
}
