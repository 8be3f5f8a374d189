package com.larqrep.benchmark;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.content.Intent;
import java.io.File;
import java.nio.file.StandardCopyOption;
import org.json.JSONArray;
import org.json.JSONObject;
import org.junit.Assume;
import org.junit.BeforeClass;
import org.junit.Test;
import org.robolectric.Robolectric;
import org.robolectric.RuntimeEnvironment;

/**
 * The app with Android's own libraries: TFLite's, the delegate and its JNI library for x86-64, over a bionic shim.
 *
 * <p>They are loaded once in a process, so no other class may load them. {@code larqrep.libraries} names their folder.
 */
public final class NativeTest extends ScreenTest {
  /** Digits as a person draws them: strokes of points, in shares of the square's side. */
  private static final float[][][] DIGITS = {
      {{.5f, .1f, .36f, .16f, .28f, .35f, .27f, .6f, .34f, .83f, .5f, .9f, .64f, .83f, .72f, .6f, .71f, .35f,
          .63f, .16f, .5f, .1f}},
      {{.4f, .27f, .52f, .1f, .52f, .9f}},
      {{.3f, .3f, .35f, .15f, .5f, .1f, .65f, .17f, .68f, .32f, .58f, .52f, .42f, .7f, .3f, .88f, .5f, .88f,
          .73f, .87f}},
      {{.3f, .15f, .5f, .1f, .66f, .2f, .64f, .38f, .46f, .47f, .64f, .54f, .7f, .7f, .6f, .86f, .45f, .9f,
          .29f, .84f}},
      {{.52f, .1f, .4f, .35f, .27f, .58f, .5f, .58f, .74f, .56f}, {.6f, .38f, .58f, .62f, .55f, .9f}},
      {{.68f, .11f, .5f, .11f, .34f, .12f, .32f, .44f, .5f, .41f, .66f, .5f, .68f, .7f, .58f, .86f, .42f, .9f,
          .29f, .84f}},
      {{.58f, .1f, .42f, .28f, .32f, .5f, .3f, .7f, .38f, .87f, .54f, .9f, .67f, .8f, .67f, .64f, .54f, .55f,
          .4f, .6f, .32f, .7f}},
      {{.3f, .14f, .5f, .13f, .7f, .14f, .6f, .4f, .5f, .64f, .42f, .9f}},
      {{.62f, .2f, .5f, .1f, .36f, .17f, .36f, .32f, .5f, .46f, .64f, .6f, .66f, .78f, .52f, .9f, .36f, .8f,
          .36f, .63f, .5f, .47f, .63f, .34f, .62f, .2f}},
      {{.66f, .27f, .52f, .1f, .36f, .17f, .34f, .36f, .46f, .47f, .62f, .4f, .66f, .27f, .66f, .5f, .64f, .7f,
          .58f, .9f}},
  };

  @BeforeClass
  public static void needLibraries() {
    Assume.assumeNotNull(System.getProperty("larqrep.libraries"));
  }

  @Override
  Machine machine() {
    return new Machine();
  }

  private JSONObject amStart(String arguments, String name) throws Exception {
    Intent intent = new Intent(RuntimeEnvironment.getApplication(), BenchmarkActivity.class).putExtra("args",
        arguments + " --output=" + name);
    BenchmarkActivity activity = Robolectric.buildActivity(BenchmarkActivity.class, intent).setup().get();
    Stage.awaitRest(session);
    Stage.await("end", activity::isFinishing);
    File file = new File(activity.getExternalFilesDir(null), name);
    java.nio.file.Files.copy(file.toPath(), fixture(name), StandardCopyOption.REPLACE_EXISTING);
    return new JSONObject(Files.text(file));
  }

  @Test
  public void everyBundledNetworkGivesTheDesktopsOutputs() throws Exception {
    for (Source source : session.sources()) {
      JSONObject report = amStart("--num_runs=5 --warmup_runs=1 --num_threads=2 --model=" + source.model,
          source.name + ".report.json");
      assertEquals(report.toString(), "agrees", report.getJSONObject("agreement").getString("verdict"));
      assertTrue(report.getInt("lce_operators") > 0);
    }
  }

  @Test
  public void implementationsGiveTheSameBits() throws Exception {
    JSONObject report = amStart("--compare --model=RepResNet20 --num_runs=3 --warmup_runs=1", "compare.report.json");
    assertEquals("agrees", report.getString("verdict"));
    JSONArray rows = report.getJSONArray("compare");
    assertTrue(rows.length() >= 2);
    for (int i = 0; i < rows.length(); i++) {
      assertTrue(rows.getJSONObject(i).getBoolean("equals_portable"));
    }
  }

  /** One byte of a weight is another than in the network that the reference was made with. */
  @Test
  public void plantedFaultDiffersInJsonAndInRed() throws Exception {
    JSONObject report = amStart("--num_runs=2 --model=" + fixture("fault.tflite"), "fault.report.json");
    assertEquals("ok", report.getString("status"));
    assertEquals("differs", report.getJSONObject("agreement").getString("verdict"));
    ResultActivity result = open(ResultActivity.class).get();
    assertEquals("differs", Stage.text(result, R.id.verdict_word));
    android.graphics.Rect place = Stage.place(result, R.id.verdict);
    assertEquals(result.getColor(R.color.differs),
        Stage.picture(result).getPixel(place.centerX(), place.top + 4));
  }

  @Test
  public void fileWithoutBinaryOperatorsRuns() throws Exception {
    JSONObject report = amStart("--num_runs=2 --model=" + fixture("no_lce.tflite"), "no_lce.report.json");
    assertEquals(report.toString(), "agrees", report.getJSONObject("agreement").getString("verdict"));
    assertEquals(0, report.getInt("lce_operators"));
  }

  @Test
  public void errorsOfTheNativeSideAreWords() throws Exception {
    String refused = amStart("--implementation=sse", "sse.report.json").getString("error");
    assertTrue(refused, refused.contains("'sse'") && refused.contains("portable"));
    for (String[] wrong : new String[][] {{"cut.tflite", "damaged or cut off"}, {"float16.tflite", "float16"}}) {
      JSONObject report = amStart("--model=" + fixture(wrong[0]), "wrong.report.json");
      assertEquals("error", report.getString("status"));
      assertTrue(report.toString(), report.getString("error").contains(wrong[1]));
    }
  }

  @Test
  public void drawnDigitsAreRead() throws Exception {
    for (int network = 0; network < 2; network++) {
      TryActivity activity = open(TryActivity.class).get();
      Stage.choose(session, activity, network);
      StringBuilder read = new StringBuilder();
      int right = 0;
      for (int digit = 0; digit < DIGITS.length; digit++) {
        activity.findViewById(R.id.clear).performClick();
        for (float[] stroke : DIGITS[digit]) {
          Stage.draw(activity.findViewById(R.id.draw), stroke);
        }
        Stage.awaitRest(session);
        String answer = Stage.text(activity, R.id.answer);
        read.append(answer);
        right += answer.equals(String.valueOf(digit)) ? 1 : 0;
      }
      assertTrue(read.toString(), right >= 9); // One that was trained again may miss one.
    }
  }

  /** The class that the Python runtime finds in the same file. */
  @Test
  public void pictureHasTheDesktopsClass() throws Exception {
    TryActivity activity = open(TryActivity.class).get();
    Stage.choose(session, activity, 2);
    activity.findViewById(R.id.gallery).performClick();
    shadowOf(activity).receiveResult(shadowOf(activity).getNextStartedActivity(), Activity.RESULT_OK,
        new Intent().setData(foreign("upright.png")));
    Stage.awaitRest(session);
    Stage.awaitRest(session);
    assertEquals("class " + new String(content("class.txt"), "UTF-8").trim(), Stage.text(activity, R.id.answer));
  }
}
