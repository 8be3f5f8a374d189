package com.larqrep.benchmark;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.content.Intent;
import android.graphics.Bitmap;
import android.graphics.Color;
import android.graphics.Rect;
import android.net.Uri;
import android.os.BatteryManager;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.util.concurrent.Semaphore;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.annotation.Config;
import org.robolectric.annotation.GraphicsMode;

/** Every screen, drawn in light and dark, upright and across; with large letters once. */
@RunWith(RobolectricTestRunner.class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
@Config(sdk = 35, qualifiers = Stage.PORTRAIT)
public final class ScreensTest {
  private FakeMachine machine;
  private Session session;

  @Before
  @SuppressWarnings("deprecation") // The battery's own message is sticky.
  public void begin() {
    machine = new FakeMachine();
    Session.restart(machine);
    session = Session.of(RuntimeEnvironment.getApplication());
    Intent battery = new Intent(Intent.ACTION_BATTERY_CHANGED).putExtra(BatteryManager.EXTRA_TEMPERATURE, 312);
    RuntimeEnvironment.getApplication().sendStickyBroadcast(battery);
  }

  @After
  public void end() {
    if (machine.permits != null) {
      machine.permits.release(100_000);
    }
  }

  @Test
  public void lightPortrait() throws Exception {
    drawAll("light-portrait");
  }

  @Test
  @Config(qualifiers = Stage.LANDSCAPE)
  public void lightLandscape() throws Exception {
    drawAll("light-landscape");
  }

  @Test
  @Config(qualifiers = "+night")
  public void darkPortrait() throws Exception {
    drawAll("dark-portrait");
  }

  @Test
  @Config(qualifiers = Stage.LANDSCAPE_NIGHT)
  public void darkLandscape() throws Exception {
    drawAll("dark-landscape");
  }

  @Test
  @Config(fontScale = 1.3f)
  public void largeLetters() throws Exception {
    drawAll("large-letters");
  }

  private void drawAll(String suffix) throws Exception {
    benchmarks(suffix);
    comparisons(suffix);
    tries(suffix);
    draw(DeviceActivity.class, "device", suffix);
  }

  private <T extends Activity> T draw(Class<T> screen, String name, String suffix) throws Exception {
    try (ActivityController<T> controller = Robolectric.buildActivity(screen).setup()) {
      Stage.save(controller.get(), name + "-" + suffix);
      return controller.get();
    }
  }

  private void benchmarks(String suffix) throws Exception {
    try (ActivityController<BenchmarkActivity> controller = Robolectric.buildActivity(BenchmarkActivity.class)) {
      BenchmarkActivity benchmark = controller.setup().get();
      Stage.save(benchmark, "benchmark-" + suffix);
      machine.permits = new Semaphore(23);
      benchmark.findViewById(R.id.run).performClick();
      Stage.await("23 runs", () -> session.running().done == 23);
      Stage.await("progress", () -> Stage.text(benchmark, R.id.progress_text).contains("23 of 56"));
      Stage.save(benchmark, "benchmark-running-" + suffix);
      machine.permits.release(1000);
      Stage.awaitRest(session);
      assertResult("result-agrees-", suffix, R.string.agrees, R.color.agrees);
      machine.wrong.add("ResNet20");
      benchmark.findViewById(R.id.run).performClick();
      Stage.awaitRest(session);
      assertResult("result-differs-", suffix, R.string.differs, R.color.differs);
      machine.wrong.clear();
      machine.failure = "ResNet20.tflite needs the operator LceBmaxpool3d, which neither TFLite nor the delegate runs. "
          + "Convert it again with the converter of this version.";
      benchmark.findViewById(R.id.run).performClick();
      Stage.awaitRest(session);
      Stage.save(benchmark, "benchmark-failed-" + suffix);
      machine.failure = null;
    }
  }

  /** The verdict is on the first screenful, in words, in its colour, and large. */
  private void assertResult(String name, String suffix, int word, int colour) throws Exception {
    try (ActivityController<ResultActivity> controller = Robolectric.buildActivity(ResultActivity.class)) {
      ResultActivity result = controller.setup().get();
      Bitmap picture = Stage.save(result, name + suffix);
      assertEquals(result.getString(word), Stage.text(result, R.id.verdict_word));
      Rect verdict = Stage.place(result, R.id.verdict);
      assertTrue(verdict + " of " + picture.getHeight(), verdict.bottom <= picture.getHeight());
      assertEquals(result.getColor(colour), picture.getPixel(verdict.centerX(), verdict.top + 4));
      float large = result.<android.widget.TextView>findViewById(R.id.median).getTextSize();
      float small = result.<android.widget.TextView>findViewById(R.id.verdict_text).getTextSize();
      assertTrue(large > 3 * small);
    }
  }

  private void comparisons(String suffix) throws Exception {
    session.runs = "6";
    session.warmUp = "1";
    try (ActivityController<CompareActivity> controller = Robolectric.buildActivity(CompareActivity.class)) {
      CompareActivity compare = controller.setup().get();
      Stage.save(compare, "compare-" + suffix);
      machine.wrong.add("RepReActNetA");
      machine.permits = new Semaphore(8 * 5 + 3);
      compare.findViewById(R.id.run).performClick();
      Stage.await("five rows", () -> session.running().results.results().size() == 5 && session.running().done == 43);
      Stage.await("progress", () -> Stage.text(compare, R.id.progress_text).contains("43 of"));
      Stage.save(compare, "compare-running-" + suffix);
      machine.permits.release(1000);
      Stage.awaitRest(session);
      Stage.save(compare, "compare-finished-" + suffix);
      machine.wrong.clear();
    }
  }

  private void tries(String suffix) throws Exception {
    try (ActivityController<TryActivity> controller = Robolectric.buildActivity(TryActivity.class)) {
      TryActivity tried = controller.setup().get();
      Stage.save(tried, "try-empty-" + suffix);
      Stage.draw(tried.findViewById(R.id.draw), Stage.EIGHT);
      Stage.awaitRest(session);
      Stage.save(tried, "try-digit-" + suffix);
      Stage.choose(session, tried, 2);
      Bitmap photograph = Bitmap.createBitmap(400, 300, Bitmap.Config.ARGB_8888);
      for (int y = 0; y < 300; y++) {
        for (int x = 0; x < 400; x++) {
          boolean sun = (x - 280) * (x - 280) + (y - 90) * (y - 90) < 1800;
          boolean hill = y > 200 - 60 * Math.sin(x / 90.0);
          int ground = hill ? Color.rgb(30, 110 + y / 6, 40) : Color.rgb(90, 160, 230);
          photograph.setPixel(x, y, sun ? Color.YELLOW : ground);
        }
      }
      ByteArrayOutputStream bytes = new ByteArrayOutputStream();
      photograph.compress(Bitmap.CompressFormat.PNG, 100, bytes);
      Uri uri = Uri.parse("content://gallery/hill.png");
      shadowOf(tried.getContentResolver()).registerInputStreamSupplier(uri,
          () -> new ByteArrayInputStream(bytes.toByteArray()));
      tried.findViewById(R.id.gallery).performClick();
      shadowOf(tried).receiveResult(shadowOf(tried).getNextStartedActivity(), Activity.RESULT_OK,
          new Intent().setData(uri));
      Stage.awaitRest(session);
      Stage.awaitRest(session);
      Stage.save(tried, "try-picture-" + suffix);
    }
  }
}
