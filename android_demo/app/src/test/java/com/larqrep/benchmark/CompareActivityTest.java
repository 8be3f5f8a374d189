package com.larqrep.benchmark;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.content.Intent;
import android.net.Uri;
import com.larqrep.benchmark.core.Options;
import java.io.ByteArrayOutputStream;
import java.util.LinkedHashSet;
import java.util.Set;
import java.util.concurrent.Semaphore;
import org.junit.Test;
import org.robolectric.android.controller.ActivityController;

/** The comparison of networks, implementations and threads. */
public final class CompareActivityTest extends ScreenTest {
  private CompareActivity compared() throws Exception {
    session.runs = "2";
    session.warmUp = "0";
    CompareActivity activity = open(CompareActivity.class).get();
    activity.findViewById(R.id.run).performClick();
    Stage.awaitRest(session);
    return activity;
  }

  @Test
  public void allNetworksRunWithBothImplementationsAndAllThreads() throws Exception {
    CompareActivity activity = compared();
    Set<String> ways = new LinkedHashSet<>();
    for (Options options : machine.opened) {
      ways.add(options.implementation + options.numThreads);
    }
    assertTrue(ways.toString(), ways.contains("avx21") && ways.contains("portable1"));
    assertEquals(session.sources().size() * ways.size(), machine.opened.size());
    assertEquals("All " + machine.opened.size() + " agree", Stage.text(activity, R.id.summary));
    String tables = Stage.texts(activity.findViewById(R.id.tables));
    for (String name : new String[] {"ResNet20", "RepResNet20", "RepReActNetA"}) {
      assertTrue(tables, tables.contains(name + "\nInstruction set\nThreads\nMedian\nOutputs\navx2\n1\n"));
    }
    assertEquals(machine.opened.size(), tables.split("agrees\n", -1).length - 1);
  }

  @Test
  public void wrongNetworkIsFound() throws Exception {
    machine.wrong.add("RepReActNetA");
    CompareActivity activity = compared();
    int all = machine.opened.size();
    assertEquals(all / session.sources().size() + " of " + all + " differ", Stage.text(activity, R.id.summary));
  }

  @Test
  public void otherBitsThanPortableDiffer() throws Exception {
    machine.wrongInPortable = true; // By less than the tolerance of the verdict.
    CompareActivity activity = compared();
    assertTrue(Stage.text(activity, R.id.summary).endsWith(" differ"));
    String tables = Stage.texts(activity.findViewById(R.id.tables));
    assertTrue(tables, tables.contains("≠ portable"));
    assertTrue(tables, tables.contains("agrees"));
  }

  @Test
  public void openedFileIsComparedToo() throws Exception {
    session.open(foreign("no_lce.tflite"));
    Stage.awaitRest(session);
    CompareActivity activity = compared();
    assertTrue(Stage.texts(activity.findViewById(R.id.tables)).contains("no_lce\n"));
    int all = machine.opened.size();
    int networks = session.sources().size();
    assertEquals(all / networks * (networks - 1) + " of " + all + " agree, the others have nothing to compare with",
        Stage.text(activity, R.id.summary));
  }

  @Test
  public void warmDeviceIsWaitedFor() throws Exception {
    machine.thermal = 2;
    CompareActivity activity = open(CompareActivity.class).get();
    activity.findViewById(R.id.run).performClick();
    Stage.await("pause", () -> Stage.text(activity, R.id.progress_text).startsWith("Waiting until the device is cool"));
    assertTrue(machine.opened.isEmpty());
    machine.thermal = 0;
    Stage.awaitRest(session);
    assertTrue(session.comparison.isDone());
  }

  @Test
  public void pauseIsCancelledToo() throws Exception {
    machine.thermal = 2;
    CompareActivity activity = open(CompareActivity.class).get();
    activity.findViewById(R.id.run).performClick();
    activity.findViewById(R.id.run).performClick();
    Stage.awaitRest(session);
    assertEquals(Task.State.CANCELLED, session.comparison.state);
    assertEquals("Cancelled.", Stage.text(activity, R.id.progress_text));
  }

  @Test
  public void rowsSurviveRotationInTheMiddle() throws Exception {
    machine.permits = new Semaphore(15);
    ActivityController<CompareActivity> controller = open(CompareActivity.class);
    controller.get().findViewById(R.id.run).performClick();
    Stage.await("a row", () -> session.running().results.results().size() == 1 && session.running().done == 15);
    CompareActivity turned = controller.recreate().get();
    assertTrue(Stage.texts(turned.findViewById(R.id.tables)).contains("avx2\n1\n"));
    assertTrue(Stage.text(turned, R.id.progress_text).contains(": 15 of "));
    assertFalse(Stage.isShown(turned, R.id.share));
    machine.permits.release(10_000);
    Stage.awaitRest(session);
    assertTrue(Stage.isShown(turned, R.id.share));
  }

  @Test
  public void failureIsTold() throws Exception {
    machine.failure = "Nothing runs here.";
    assertEquals(machine.failure, Stage.text(compared(), R.id.summary));
  }

  @Test
  public void tableIsSharedAndSaved() throws Exception {
    CompareActivity activity = compared();
    activity.findViewById(R.id.share).performClick();
    Intent send = shadowOf(activity).getNextStartedActivity().getParcelableExtra(Intent.EXTRA_INTENT,
        Intent.class);
    assertTrue(send.getStringExtra(Intent.EXTRA_TEXT).contains("\nnetwork,implementation,num_threads,"));
    activity.findViewById(R.id.save_csv).performClick();
    Intent asked = shadowOf(activity).getNextStartedActivity();
    ByteArrayOutputStream stream = new ByteArrayOutputStream();
    Uri uri = Uri.parse("content://others/c.csv");
    shadowOf(activity.getContentResolver()).registerOutputStream(uri, stream);
    shadowOf(activity).receiveResult(asked, Activity.RESULT_OK, new Intent().setData(uri));
    assertTrue(stream.toString("UTF-8").contains("\nRepReActNetA,portable,"));
  }

  /** The file that the other app has made is not left empty without a word. */
  @Test
  public void tableThatIsGoneIsTold() throws Exception {
    CompareActivity activity = compared();
    activity.findViewById(R.id.save_csv).performClick();
    session.comparison = null;
    shadowOf(activity).receiveResult(shadowOf(activity).getNextStartedActivity(), Activity.RESULT_OK,
        new Intent().setData(Uri.parse("content://others/c.csv")));
    assertTrue(org.robolectric.shadows.ShadowToast.getTextOfLatestToast().startsWith("Not saved: Android has ended"));
  }

  @Test
  public void wrongNumbersAreTold() {
    session.runs = "0";
    open(CompareActivity.class).get().findViewById(R.id.run).performClick();
    assertEquals("--num_runs should be at least 1, found 0.",
        org.robolectric.shadows.ShadowToast.getTextOfLatestToast());
  }
}
