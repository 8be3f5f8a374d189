package com.larqrep.benchmark;

import android.content.ClipData;
import android.content.Intent;
import android.graphics.Bitmap;
import android.net.Uri;
import android.os.Bundle;
import android.provider.MediaStore;
import android.text.SpannableStringBuilder;
import android.text.style.ForegroundColorSpan;
import android.view.View;
import android.view.ViewGroup;
import android.widget.AdapterView;
import android.widget.ArrayAdapter;
import android.widget.ImageView;
import android.widget.Spinner;
import android.widget.TextView;
import com.larqrep.benchmark.core.EngineException;
import com.larqrep.benchmark.core.Labels;
import com.larqrep.benchmark.core.Options;
import java.io.File;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicInteger;

/** A drawn digit for networks of grey pictures, a photograph for those of coloured ones; the answer comes at once. */
public final class TryActivity extends Screen {
  private static final int GALLERY = 1;
  private static final int CAMERA = 2;
  private static final int PREVIEW = 1024;
  /** An answer of so few letters is shown very large. */
  private static final int SHORT = 3;

  private final AtomicInteger latest = new AtomicInteger();
  private List<Source> sources;
  private DrawView draw;
  private boolean waiting;
  private Picture shown;
  private String shownProblem;

  /** The loaded network and what it is; for the thread of the session. */
  private Classifier classifier;
  private Source loaded;

  @Override
  protected void onCreate(Bundle state) {
    super.onCreate(state);
    show(R.layout.try_it, TryActivity.class);
    arrange(findViewById(R.id.sides), isLandscape(), isLandscape() ? pixels(R.dimen.edge) : 0);
    draw = findViewById(R.id.draw);
    draw.setLines(session.drawing);
    draw.setListener(() -> {
      session.drawing = new ArrayList<>(draw.lines());
      ask();
    });
    findViewById(R.id.clear).setOnClickListener(view -> {
      session.drawing = new ArrayList<>();
      draw.setLines(session.drawing);
      ask();
    });
    findViewById(R.id.gallery).setOnClickListener(view ->
        ask(new Intent(Intent.ACTION_GET_CONTENT).addCategory(Intent.CATEGORY_OPENABLE).setType("image/*"), GALLERY));
    findViewById(R.id.camera).setOnClickListener(view -> photograph());
    sources = session.sources();
    List<String> names = new ArrayList<>();
    int chosen = 0;
    for (Source source : sources) {
      if (source.model.equals(session.tried)) {
        chosen = names.size();
      }
      names.add(source.name);
    }
    ArrayAdapter<String> adapter = new ArrayAdapter<>(this, android.R.layout.simple_spinner_item, names);
    adapter.setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item);
    Spinner spinner = findViewById(R.id.network);
    spinner.setSaveEnabled(false);
    spinner.setAdapter(adapter);
    spinner.setSelection(chosen, false);
    spinner.setOnItemSelectedListener(new AdapterView.OnItemSelectedListener() {
      @Override
      public void onItemSelected(AdapterView<?> parent, View view, int position, long row) {
        session.tried = sources.get(position).model;
        session.pictureProblem = null;
        ask();
      }

      @Override
      public void onNothingSelected(AdapterView<?> parent) {}
    });
    showInput(true);
    showPicture();
  }

  private Source source() {
    int position = this.<Spinner>findViewById(R.id.network).getSelectedItemPosition();
    return position < 0 ? null : sources.get(position);
  }

  private void showInput(boolean grey) {
    draw.setVisibility(grey ? View.VISIBLE : View.GONE);
    findViewById(R.id.clear).setVisibility(grey ? View.VISIBLE : View.GONE);
    findViewById(R.id.picture).setVisibility(grey ? View.GONE : View.VISIBLE);
    findViewById(R.id.gallery).setVisibility(grey ? View.GONE : View.VISIBLE);
    findViewById(R.id.camera).setVisibility(grey ? View.GONE : View.VISIBLE);
  }

  private void showPicture() {
    shown = session.picture;
    if (shown != null) {
      this.<ImageView>findViewById(R.id.picture).setImageBitmap(shown.preview(PREVIEW));
    }
  }

  @Override
  protected void onStart() {
    super.onStart();
    ask();
  }

  @Override
  protected void onStop() {
    latest.incrementAndGet();
    session.execute(this::unload);
    super.onStop();
  }

  @Override
  public void changed() {
    super.changed();
    boolean measuring = session.running() != null;
    if (session.picture != shown || !Objects.equals(session.pictureProblem, shownProblem)) {
      showPicture();
      ask();
    }
    if (waiting && !measuring) {
      ask();
    } else if (measuring) {
      waiting = true;
      showRemark(getString(R.string.waits_for_benchmark), "");
    }
  }

  // Asking the network.

  /** Runs the chosen network on what is drawn or chosen now; of many requests the last one counts. */
  private void ask() {
    int request = latest.incrementAndGet();
    waiting = session.running() != null;
    shownProblem = session.pictureProblem;
    Source source = source();
    if (waiting || source == null) {
      return;
    }
    Options options = new Options.Builder().setNumThreads(session.numThreads).setImplementation(session.implementation)
        .setFuse(session.fuse).build();
    List<float[]> lines = session.drawing;
    Picture picture = session.picture;
    String problem = session.pictureProblem;
    session.execute(() -> {
      if (request != latest.get()) {
        return;
      }
      Runnable answer;
      try {
        answer = answer(source, options, lines, picture, problem);
      } catch (EngineException | RuntimeException | Error error) {
        answer = () -> showTrouble(Texts.of(error));
      }
      Runnable shown = answer;
      session.post(() -> {
        if (request == latest.get()) {
          shown.run();
        }
      });
    });
  }

  /** What to show. */
  private Runnable answer(Source source, Options options, List<float[]> lines, Picture picture,
      String problem) throws EngineException {
    if (loaded == null || !loaded.model.equals(source.model)) {
      unload();
      classifier = new Classifier(session.open(source, options));
      loaded = source;
    }
    boolean grey = classifier.preparation().channels() == 1;
    int width = grey ? classifier.width() : picture == null ? 0 : picture.width;
    int height = grey ? classifier.height() : picture == null ? 0 : picture.height;
    Classifier.Answer found = null;
    if (grey && !lines.isEmpty()) {
      found = classifier.classify(Digit.picture(Digit.levels(lines), width, height), width, height);
    } else if (!grey && picture != null) {
      found = classifier.classify(picture.argb, width, height);
    }
    Classifier.Answer answer = found;
    String preparation = grey ? getString(R.string.digit_preparation, width, height)
        : getString(R.string.picture_preparation, classifier.preparation().text());
    if (!grey && !classifier.preparation().assumed().isEmpty()) {
      preparation += getString(R.string.assumed_preparation, classifier.preparation().assumed());
    }
    if (!grey && picture != null && picture.reduction > 1) {
      preparation += getString(R.string.reduced_picture, picture.reduction);
    }
    String remark = preparation;
    return () -> {
      showInput(grey);
      if (!grey && problem != null) {
        showTrouble(problem);
        return;
      }
      showAnswer(answer, grey, options.numThreads);
      boolean untrained = source.network != null && !source.network.trained;
      showRemark(untrained ? getString(R.string.untrained_answers) : "", remark);
    };
  }

  private void unload() {
    if (classifier != null) {
      classifier.close();
    }
    classifier = null;
    loaded = null;
  }

  private void showAnswer(Classifier.Answer answer, boolean grey, int threads) {
    TextView first = findViewById(R.id.answer);
    TextView time = findViewById(R.id.answer_time);
    ViewGroup top = findViewById(R.id.top);
    top.removeAllViews();
    String name = answer == null || answer.top.isEmpty() ? "" : name(answer.top.get(0));
    boolean large = !name.isEmpty() && name.length() <= SHORT;
    arrange(findViewById(R.id.answer_card), large, 0);
    first.setTextSize(large ? 72 : 28);
    if (name.isEmpty()) {
      first.setText(grey ? R.string.draw_a_digit : R.string.choose_a_picture);
      time.setText("");
      return;
    }
    first.setText(name);
    time.setText(getString(R.string.answer_time, Texts.ms(this, answer.milliseconds),
        getResources().getQuantityString(R.plurals.threads, threads, threads)));
    for (int i = 0; i < answer.top.size(); i++) {
      float value = answer.values.get(i);
      line(top, name(answer.top.get(i)),
          answer.areShares ? getString(R.string.percent, Texts.digits(value * 100)) : Texts.digits(value));
    }
  }

  private String name(Labels.Answer answer) {
    return answer.name == null ? getString(R.string.class_number, answer.index) : answer.name;
  }

  private void showRemark(String important, String other) {
    SpannableStringBuilder text = new SpannableStringBuilder(important);
    text.setSpan(new ForegroundColorSpan(getColor(R.color.differs_text)), 0, text.length(), 0);
    text.append(important.isEmpty() || other.isEmpty() ? "" : "\n").append(other);
    this.<TextView>findViewById(R.id.remark).setText(text);
  }

  private void showTrouble(String message) {
    showAnswer(null, draw.getVisibility() == View.VISIBLE, 1);
    this.<TextView>findViewById(R.id.answer).setText(R.string.failed);
    showRemark(message, "");
  }

  // Pictures.

  private void photograph() {
    File file = PictureProvider.file(this);
    if (file.exists() && !file.delete()) {
      tell(getString(R.string.cannot_read, file.getName(), ""));
      return;
    }
    Intent intent = new Intent(MediaStore.ACTION_IMAGE_CAPTURE)
        .putExtra(MediaStore.EXTRA_OUTPUT, PictureProvider.PICTURE)
        .addFlags(Intent.FLAG_GRANT_WRITE_URI_PERMISSION | Intent.FLAG_GRANT_READ_URI_PERMISSION);
    intent.setClipData(ClipData.newRawUri(null, PictureProvider.PICTURE)); // Grants go with it.
    ask(intent, CAMERA);
  }

  @Override
  @SuppressWarnings("deprecation") // The other getParcelableExtra is of API 33.
  protected void onActivityResult(int request, int result, Intent data) {
    if (result == RESULT_OK && request == GALLERY && data != null && data.getData() != null) {
      session.read(data.getData());
    } else if (result == RESULT_OK && request == CAMERA) {
      File file = PictureProvider.file(this);
      Bitmap small = data == null ? null : data.<Bitmap>getParcelableExtra("data");
      if (file.length() > 0) {
        session.read(Uri.fromFile(file));
      } else if (small != null) { // Some camera apps give their small picture only.
        session.take(Picture.of(small), null);
      } else {
        tell(getString(R.string.no_photograph));
      }
    }
    super.onActivityResult(request, result, data);
  }
}
