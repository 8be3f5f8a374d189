package com.larqrep.benchmark;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.content.Intent;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.nio.file.StandardCopyOption;
import java.util.concurrent.Semaphore;
import org.json.JSONObject;
import org.junit.Test;
import org.robolectric.Robolectric;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.shadows.ShadowLog;

/** What {@code am start} does: no interaction, a report in a file and in the log, and an end. */
public final class AmStartTest extends ScreenTest {
  private static ActivityController<BenchmarkActivity> start(String arguments) {
    Intent intent = new Intent(RuntimeEnvironment.getApplication(), BenchmarkActivity.class);
    intent.putExtra("args", arguments);
    return Robolectric.buildActivity(BenchmarkActivity.class, intent).setup();
  }

  private JSONObject report(String arguments, String name) throws Exception {
    BenchmarkActivity activity = start(arguments).get();
    Stage.awaitRest(session);
    Stage.await("end", activity::isFinishing);
    assertNull(shadowOf(activity).getNextStartedActivity());
    return report(name);
  }

  /** The report in the file, which is that in the log. */
  private static JSONObject report(String name) throws Exception {
    File folder = RuntimeEnvironment.getApplication().getExternalFilesDir(null);
    String text = Files.text(new File(folder, name));
    StringBuilder logged = new StringBuilder();
    int lines = 0;
    for (ShadowLog.LogItem item : ShadowLog.getLogsForTag("larq-rep")) {
      if (item.msg.startsWith(name + " ")) {
        assertEquals(android.util.Log.INFO, item.type);
        assertTrue(item.msg.getBytes(StandardCharsets.UTF_8).length < 4000);
        String[] parts = item.msg.substring(name.length() + 1).split(" ", 2);
        assertTrue(parts[0].startsWith(++lines + "/"));
        logged.append(parts[1]);
      }
    }
    assertEquals(text, logged.toString());
    assertFalse(new File(folder, name + ".part").exists());
    return new JSONObject(text);
  }

  @Test
  public void networkIsMeasured() throws Exception {
    JSONObject report = report("--model=represnet20 --num_runs 300 --num_threads=2 --warmup_runs=1 "
        + "--implementation=popcnt --no_fuse --top=3 --output=r.json", "r.json");
    assertEquals("ok", report.getString("status"));
    assertEquals("RepResNet20", report.getString("network"));
    assertEquals(300, report.getJSONArray("runs_ms").length());
    assertEquals("popcnt", report.getString("implementation"));
    assertEquals(3, report.getJSONArray("top").length());
    assertEquals("agrees", report.getJSONObject("agreement").getString("verdict"));
    assertTrue(report.getJSONObject("device").has("page_size"));
    assertTrue(report.getJSONObject("thermal").getJSONObject("after").has("battery_celsius"));
    assertEquals("0.2.0", report.getString("app_version"));
    assertEquals("2.16.1", report.getString("tflite_version"));
    assertEquals(2, machine.opened.get(0).numThreads);
    assertFalse(machine.opened.get(0).fuse);
  }

  @Test
  public void wrongOutputsDiffer() throws Exception {
    machine.wrong.add("ResNet20");
    JSONObject report = report("", "result.json");
    assertEquals("ok", report.getString("status"));
    assertEquals("differs", report.getJSONObject("agreement").getString("verdict"));
  }

  @Test
  public void allAreCompared() throws Exception {
    JSONObject report = report("--compare --num_runs=2 --warmup_runs=0 --output=c.json", "c.json");
    assertEquals("agrees", report.getString("verdict"));
    assertEquals(machine.opened.size(), report.getJSONArray("compare").length());
    assertTrue(report.getJSONArray("compare").getJSONObject(0).getBoolean("equals_portable"));
  }

  @Test
  public void oneIsComparedIfItIsNamed() throws Exception {
    JSONObject report = report("--compare --model=RepReActNetA --num_runs=2 --warmup_runs=0", "result.json");
    for (int i = 0; i < report.getJSONArray("compare").length(); i++) {
      assertEquals("RepReActNetA", report.getJSONArray("compare").getJSONObject(i).getString("network"));
    }
  }

  @Test
  public void wrongOptionsGiveAReportUnderTheNameThatSomebodyWaitsFor() throws Exception {
    String[][] cases = {
        {"--num_run=3 --output=a.json", "a.json", "Unknown option --num_run. Did you mean --num_runs?"},
        {"--num_runs=0 --output='c d.json'", "c d.json", "--num_runs should be at least 1, found 0."},
        {"--model='--output=z.json' --top=x --output=y.json", "y.json", "--top should be a whole number"},
        {"--output=q.json 'open", "result.json", "an opening ' without a closing one"},
        {"--num_runs=0 --output 'b.json'", "b.json", "--num_runs should be at least 1, found 0."},
        {"--model=ResNet21 --output=\"d.json\"", "d.json", "Did you mean ResNet20?"},
        {"--model=/sdcard/none.tflite", "result.json", "found '/sdcard/none.tflite'."},
        {"--output=../e.json", "result.json", "--output should be a plain file name"},
        {"hello", "result.json", "Unknown option hello."},
    };
    for (String[] wrong : cases) {
      ShadowLog.clear();
      JSONObject report = report(wrong[0], wrong[1]);
      assertEquals("error", report.getString("status"));
      assertTrue(report.getString("error"), report.getString("error").contains(wrong[2]));
    }
  }

  @Test
  public void failureGivesAReport() throws Exception {
    machine.failure = "TFLite does not run ResNet20.tflite: because.";
    JSONObject report = report("--output=f.json", "f.json");
    assertEquals("error", report.getString("status"));
    assertEquals(machine.failure, report.getString("error"));
  }

  @Test
  public void unexpectedErrorGivesAReportAndTheNextStartRuns() throws Exception {
    machine.error = new StackOverflowError("too deep");
    JSONObject report = report("--output=e.json", "e.json");
    assertEquals("error", report.getString("status"));
    assertEquals("Something unexpected: too deep", report.getString("error"));
    machine.error = null;
    assertEquals("ok", report("--num_runs=1 --output=n.json", "n.json").getString("status"));
  }

  @Test
  public void reportThatCannotBeWrittenIsStillInTheLog() throws Exception {
    File folder = RuntimeEnvironment.getApplication().getExternalFilesDir(null);
    assertTrue(new File(folder, "w.json/inside").mkdirs());
    BenchmarkActivity activity = start("--num_runs=1 --output=w.json").get();
    Stage.awaitRest(session);
    Stage.await("end", activity::isFinishing);
    StringBuilder logged = new StringBuilder();
    for (ShadowLog.LogItem item : ShadowLog.getLogsForTag("larq-rep")) {
      logged.append(item.msg).append('\n');
    }
    assertTrue(logged.toString(), logged.toString().contains("\"status\":\"ok\""));
    assertTrue(logged.toString(), logged.toString().contains("w.json cannot be written: "));
  }

  @Test
  public void fileInTheAppsFolderIsMeasuredWithItsReference() throws Exception {
    File folder = new File(RuntimeEnvironment.getApplication().getExternalFilesDir(null), "pushed");
    assertTrue(folder.isDirectory() || folder.mkdirs());
    for (String name : new String[] {"no_lce.tflite", "no_lce.reference.json"}) {
      java.nio.file.Files.copy(fixture(name), new File(folder, name).toPath(), StandardCopyOption.REPLACE_EXISTING);
    }
    for (String path : new String[] {"pushed/no_lce.tflite", folder + "/no_lce.tflite"}) {
      ShadowLog.clear();
      JSONObject report = report("--model='" + path + "' --num_runs=1", "result.json");
      assertEquals("no_lce", report.getString("network"));
      assertEquals("differs", report.getJSONObject("agreement").getString("verdict")); // Of the fake: other counts.
    }
  }

  @Test
  public void rotationStartsNothingAgain() throws Exception {
    machine.permits = new Semaphore(2);
    ActivityController<BenchmarkActivity> controller = start("--num_runs=3 --output=g.json");
    Stage.await("2 runs", () -> session.running().done == 2);
    controller.recreate();
    machine.permits.release(100);
    Stage.awaitRest(session);
    assertEquals(1, machine.opened.size());
    Stage.await("end", () -> controller.get().isFinishing());
    assertEquals("ok", report("g.json").getString("status"));
  }

  @Test
  public void secondStartIsRefused() throws Exception {
    machine.permits = new Semaphore(2);
    start("--num_runs=3 --output=h.json");
    Stage.await("2 runs", () -> session.running().done == 2);
    start("--output=i.json");
    assertTrue(report("i.json").getString("error").contains("running already"));
    machine.permits.release(100);
    Stage.awaitRest(session);
    assertEquals("ok", report("h.json").getString("status"));
  }
}
