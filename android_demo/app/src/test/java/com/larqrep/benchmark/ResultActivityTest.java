package com.larqrep.benchmark;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.content.Intent;
import android.net.Uri;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.util.Collections;
import org.json.JSONObject;
import org.junit.Test;

/** What a result says, and where it can go. */
public final class ResultActivityTest extends ScreenTest {
  private ResultActivity result() throws Exception {
    session.start(session.options(false), Collections.singletonList(session.chosen()));
    Stage.awaitRest(session);
    return open(ResultActivity.class).get();
  }

  @Test
  public void agreement() throws Exception {
    ResultActivity activity = result();
    double median = session.benchmark.result().statistics().median;
    assertEquals(Texts.ms(activity, median), Stage.text(activity, R.id.median));
    assertEquals("median of 7 runs\nResNet20, 1 thread, avx2", Stage.text(activity, R.id.settings));
    assertEquals("agrees", Stage.text(activity, R.id.verdict_word));
    assertTrue(Stage.text(activity, R.id.verdict_text).startsWith("Same outputs as on a desktop: at most 0 apart"));
    String times = Stage.texts(activity.findViewById(R.id.times));
    for (String line : new String[] {"Load\n12.3 ms", "First run", "Fastest run", "10th percentile",
        "Median\n" + Texts.ms(activity, median), "90th percentile", "Median by TFLite\n1.90 ms"}) {
      assertTrue(line + " in " + times, times.contains(line));
    }
    String measured = Stage.texts(activity.findViewById(R.id.measured));
    assertTrue(measured, measured.contains("Timed runs\n7 after 2 to warm up\n"));
    assertTrue(measured, measured.contains("Throttling\nnone → none\n"));
  }

  @Test
  public void difference() throws Exception {
    machine.wrong.add("ResNet20");
    ResultActivity activity = result();
    assertEquals("differs", Stage.text(activity, R.id.verdict_word));
    String text = Stage.text(activity, R.id.verdict_text);
    assertTrue(text, text.startsWith("Other outputs than on a desktop: up to 0.500 apart"));
  }

  @Test
  public void fileWithoutReferenceAndOperators() throws Exception {
    session.open(foreign("no_lce.tflite"));
    Stage.awaitRest(session);
    ResultActivity activity = result();
    assertEquals("not known", Stage.text(activity, R.id.verdict_word));
    assertTrue(Stage.texts(activity.findViewById(R.id.measured)).contains("none: stock TFLite runs all of this file"));
  }

  @Test
  public void talkBackReadsTheTwoAnswers() throws Exception {
    ResultActivity activity = result();
    String speed = activity.findViewById(R.id.speed).getContentDescription().toString();
    assertTrue(speed, speed.matches("How fast\\? [0-9.]+ ms\\. median of 7 runs\\s.*"));
    String verdict = activity.findViewById(R.id.verdict).getContentDescription().toString();
    assertTrue(verdict, verdict.startsWith("Is it right? Verdict: agrees. Same outputs"));
    String chart = activity.findViewById(R.id.chart).getContentDescription().toString();
    assertTrue(chart, chart.startsWith("Times of 7 runs, most between "));
  }

  @Test
  public void textIsSharedWithJson() throws Exception {
    ResultActivity activity = result();
    activity.findViewById(R.id.share).performClick();
    Intent chooser = shadowOf(activity).getNextStartedActivity();
    assertEquals(Intent.ACTION_CHOOSER, chooser.getAction());
    Intent send = chooser.getParcelableExtra(Intent.EXTRA_INTENT, Intent.class);
    assertEquals(Intent.ACTION_SEND, send.getAction());
    assertEquals("text/plain", send.getType());
    String text = send.getStringExtra(Intent.EXTRA_TEXT);
    assertTrue(text, text.startsWith("ResNet20, 1 thread, avx2: median "));
    assertEquals("ok", new JSONObject(text.substring(text.indexOf('{'))).getString("status"));
  }

  /** Android hands on about a megabyte; what is longer would end the app. */
  @Test
  public void longReportIsNotShared() throws Exception {
    machine.sleeps = false;
    session.runs = "20000";
    ResultActivity activity = result();
    assertTrue(activity.document(true).length() > 100_000);
    activity.findViewById(R.id.share).performClick();
    Intent send = shadowOf(activity).getNextStartedActivity().getParcelableExtra(Intent.EXTRA_INTENT, Intent.class);
    String text = send.getStringExtra(Intent.EXTRA_TEXT);
    assertTrue(text, text.startsWith("ResNet20, 1 thread, avx2: median ") && text.endsWith("save them."));
  }

  @Test
  public void jsonAndCsvAreSaved() throws Exception {
    ResultActivity activity = result();
    JSONObject json = new JSONObject(saved(activity, R.id.save_json, "application/json", "ResNet20.json"));
    assertEquals(7, json.getJSONArray("runs_ms").length());
    String csv = saved(activity, R.id.save_csv, "text/csv", "ResNet20.csv");
    String[] lines = csv.split("\r?\n");
    assertTrue(csv, lines[lines.length - 1].startsWith("7,"));
  }

  private static String saved(Activity activity, int button, String type, String name) throws Exception {
    activity.findViewById(button).performClick();
    Intent asked = shadowOf(activity).getNextStartedActivity();
    assertEquals(Intent.ACTION_CREATE_DOCUMENT, asked.getAction());
    assertEquals(type, asked.getType());
    assertEquals(name, asked.getStringExtra(Intent.EXTRA_TITLE));
    ByteArrayOutputStream stream = new ByteArrayOutputStream();
    Uri uri = Uri.parse("content://others/" + name);
    shadowOf(activity.getContentResolver()).registerOutputStream(uri, stream);
    shadowOf(activity).receiveResult(asked, Activity.RESULT_OK, new Intent().setData(uri));
    return stream.toString("UTF-8");
  }

  @Test
  public void whatCannotBeSavedIsTold() throws Exception {
    ResultActivity activity = result();
    activity.findViewById(R.id.save_csv).performClick();
    Uri uri = Uri.fromFile(new File("/nowhere/at/all.csv"));
    shadowOf(activity).receiveResult(shadowOf(activity).getNextStartedActivity(), Activity.RESULT_OK,
        new Intent().setData(uri));
    assertTrue(org.robolectric.shadows.ShadowToast.getTextOfLatestToast().startsWith("Not saved: "));
  }

  @Test
  public void resultSurvivesRotationButNotTheProcess() throws Exception {
    result();
    assertFalse(open(ResultActivity.class).recreate().get().isFinishing());
    Session.restart(machine);
    assertTrue(org.robolectric.Robolectric.buildActivity(ResultActivity.class).create().get().isFinishing());
  }
}
