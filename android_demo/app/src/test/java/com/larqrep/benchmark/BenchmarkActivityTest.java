package com.larqrep.benchmark;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotSame;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertSame;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.content.Intent;
import android.net.Uri;
import android.os.Bundle;
import android.view.View;
import android.view.ViewGroup;
import android.view.WindowManager;
import android.widget.EditText;
import android.widget.RadioButton;
import android.widget.RadioGroup;
import android.widget.Spinner;
import android.widget.Switch;
import com.larqrep.benchmark.core.EngineException;
import com.larqrep.benchmark.core.Options;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Semaphore;
import org.junit.Test;
import org.robolectric.Robolectric;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.android.controller.ActivityController;

/** The controls of the first screen, and what a running benchmark survives. */
public final class BenchmarkActivityTest extends ScreenTest {
  private static RadioButton network(Activity activity, int place) {
    return (RadioButton) activity.<RadioGroup>findViewById(R.id.networks).getChildAt(place);
  }

  private static boolean keepsScreenOn(Activity activity) {
    return (activity.getWindow().getAttributes().flags & WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON) != 0;
  }

  @Test
  public void networksAreListedWithSizeAndWork() {
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    assertEquals("ResNet20\n65.1 kB, 10.1 million MACs, trained on digits", network(activity, 0).getText().toString());
    assertEquals("RepReActNetA\n12.0 MB, 4.83 billion MACs, untrained", network(activity, 2).getText().toString());
    assertTrue(network(activity, 0).isChecked());
  }

  @Test
  public void defaultsAreThoseOfTheCommandLine() throws Exception {
    Session.restart(machine);
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    activity.findViewById(R.id.run).performClick();
    Stage.awaitRest(Session.of(activity));
    Options options = machine.opened.get(0);
    assertEquals(1, options.numThreads);
    assertEquals(5, options.warmupRuns);
    assertEquals(50, options.numRuns);
    assertNull(options.implementation);
    assertTrue(options.fuse);
  }

  @Test
  public void everyControlReachesTheEngine() throws Exception {
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    network(activity, 1).performClick();
    activity.<Spinner>findViewById(R.id.threads).setSelection(1);
    activity.<Spinner>findViewById(R.id.implementation).setSelection(3);
    activity.<EditText>findViewById(R.id.runs).setText("4");
    activity.<EditText>findViewById(R.id.warm_up).setText("0");
    activity.<Switch>findViewById(R.id.fuse).setChecked(false);
    Stage.await("a choice", () -> session.numThreads == 2 && session.implementation != null);
    activity.findViewById(R.id.run).performClick();
    Stage.awaitRest(session);
    Options options = machine.opened.get(0);
    assertEquals(2, options.numThreads);
    assertEquals("portable", options.implementation);
    assertEquals(4, options.numRuns);
    assertEquals(0, options.warmupRuns);
    assertFalse(options.fuse);
    assertEquals("RepResNet20", session.benchmark.result().network());
    assertEquals(4, session.benchmark.result().statistics().runs().length);
    assertEquals(1, machine.closed);
    assertEquals(ResultActivity.class.getName(), shadowOf(activity).getNextStartedActivity().getComponent()
        .getClassName());
  }

  @Test
  public void choicesSurviveRotation() throws Exception {
    ActivityController<BenchmarkActivity> controller = open(BenchmarkActivity.class);
    BenchmarkActivity activity = controller.get();
    network(activity, 2).performClick();
    activity.<Spinner>findViewById(R.id.threads).setSelection(1);
    activity.<EditText>findViewById(R.id.runs).setText("123");
    activity.<Switch>findViewById(R.id.fuse).setChecked(false);
    Stage.await("a choice", () -> session.numThreads == 2);
    BenchmarkActivity turned = controller.recreate().get();
    Stage.awaitRest(session);
    assertTrue(network(turned, 2).isChecked());
    assertEquals(1, turned.<Spinner>findViewById(R.id.threads).getSelectedItemPosition());
    assertEquals("123", Stage.text(turned, R.id.runs));
    assertFalse(turned.<Switch>findViewById(R.id.fuse).isChecked());
  }

  @Test
  public void runSurvivesRotationAndLeaving() throws Exception {
    machine.permits = new Semaphore(4);
    ActivityController<BenchmarkActivity> controller = open(BenchmarkActivity.class);
    controller.get().findViewById(R.id.run).performClick();
    Task task = session.running();
    Stage.await("4 runs", () -> task.done == 4);
    BenchmarkActivity turned = controller.recreate().get();
    assertSame(task, session.running());
    assertEquals("ResNet20: 4 of 10 runs", Stage.text(turned, R.id.progress_text));
    assertEquals(turned.getString(R.string.cancel), Stage.text(turned, R.id.run));
    assertTrue(keepsScreenOn(turned));
    controller.pause().stop().destroy();
    machine.permits.release(100);
    Stage.awaitRest(session);
    assertTrue(task.isDone());
    BenchmarkActivity again = open(BenchmarkActivity.class).get();
    assertEquals(ResultActivity.class.getName(),
        shadowOf(again).getNextStartedActivity().getComponent().getClassName());
    assertFalse(keepsScreenOn(again));
    assertTrue(Stage.isShown(again, R.id.last));
    again.findViewById(R.id.last).performClick();
    assertEquals(ResultActivity.class.getName(),
        shadowOf(again).getNextStartedActivity().getComponent().getClassName());
  }

  @Test
  public void cancelEndsWithinOneInference() throws Exception {
    machine.permits = new Semaphore(3);
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    activity.findViewById(R.id.run).performClick();
    Task task = session.running();
    Stage.await("3 runs", () -> task.done == 3);
    activity.findViewById(R.id.run).performClick();
    assertEquals(activity.getString(R.string.cancelling), Stage.text(activity, R.id.run));
    assertFalse(activity.findViewById(R.id.run).isEnabled());
    machine.permits.release(100);
    Stage.awaitRest(session);
    assertEquals(99, machine.permits.availablePermits()); // The run that went on, and no other.
    assertEquals(Task.State.CANCELLED, task.state);
    assertEquals(activity.getString(R.string.cancelled), Stage.text(activity, R.id.progress_text));
    assertEquals(activity.getString(R.string.run), Stage.text(activity, R.id.run));
    assertNull(shadowOf(activity).getNextStartedActivity());
  }

  @Test
  public void wrongNumbersAreRefusedInWords() {
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    for (String[] wrong : new String[][] {
        {"0", "--num_runs should be at least 1, found 0."}, {"", "--num_runs should be a whole number, found ''."}}) {
      activity.<EditText>findViewById(R.id.runs).setText(wrong[0]);
      activity.findViewById(R.id.run).performClick();
      assertTrue(Stage.isShown(activity, R.id.failure));
      assertEquals(wrong[1], Stage.text(activity, R.id.failure_text));
    }
    assertNull(session.benchmark);
  }

  @Test
  public void failureIsShownInWordsAndGoesWithTheNextRun() throws Exception {
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    machine.failure = "ResNet20.tflite needs the operator LceX, which neither TFLite nor the delegate runs.";
    activity.findViewById(R.id.run).performClick();
    Stage.awaitRest(session);
    assertTrue(Stage.isShown(activity, R.id.failure));
    assertEquals(machine.failure, Stage.text(activity, R.id.failure_text));
    machine.failure = null;
    activity.findViewById(R.id.run).performClick();
    Stage.awaitRest(session);
    assertFalse(Stage.isShown(activity, R.id.failure));
  }

  @Test
  public void fileIsOpenedAndChosen() throws Exception {
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    pick(activity, foreign("no_lce.tflite"));
    RadioGroup networks = activity.findViewById(R.id.networks);
    RadioButton last = network(activity, networks.getChildCount() - 1);
    assertTrue(last.getText().toString().startsWith("no_lce\n"));
    assertTrue(last.isChecked());
    activity.findViewById(R.id.run).performClick();
    Stage.awaitRest(session);
    assertEquals("no_lce", session.benchmark.result().network());
    assertEquals(0, session.benchmark.result().lceOperators());
    assertEquals("no reference", session.benchmark.result().agreement().verdict());
  }

  private void pick(Activity activity, Uri uri) throws Exception {
    activity.findViewById(R.id.open).performClick();
    Intent asked = shadowOf(activity).getNextStartedActivity();
    assertEquals(Intent.ACTION_OPEN_DOCUMENT, asked.getAction());
    assertEquals("*/*", asked.getType());
    shadowOf(activity).receiveResult(asked, Activity.RESULT_OK, new Intent().setData(uri));
    Stage.awaitRest(session);
  }

  @Test
  public void wrongFilesAreRefusedInWords() throws Exception {
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    int before = activity.<RadioGroup>findViewById(R.id.networks).getChildCount();
    for (String[] wrong : new String[][] {
        {"cut.tflite", "cut.tflite is damaged or cut off"},
        {"float16.tflite", "float16.tflite is float16, expected float32"},
        {"upright.png", "upright.png is not a .tflite file: expected TFL3 at byte 4"}}) {
      pick(activity, foreign(wrong[0]));
      assertTrue(Stage.text(activity, R.id.failure_text), Stage.text(activity, R.id.failure_text).contains(wrong[1]));
    }
    pick(activity, Uri.parse("content://others/gone.tflite"));
    assertTrue(Stage.text(activity, R.id.failure_text).startsWith("gone.tflite cannot be read"));
    assertEquals(before, activity.<RadioGroup>findViewById(R.id.networks).getChildCount());
  }

  /** A file of more than 2 GiB cannot be mapped, whatever it holds. */
  @Test
  public void fileThatIsTooLargeIsRefusedInWords() throws Exception {
    java.io.File huge = new java.io.File(RuntimeEnvironment.getApplication().getCacheDir(), "huge.tflite");
    try (java.io.RandomAccessFile file = new java.io.RandomAccessFile(huge, "rw")) {
      file.setLength(1L + Integer.MAX_VALUE); // Takes no place on the disk.
    }
    EngineException error = assertThrows(EngineException.class,
        () -> new Source(huge).load(RuntimeEnvironment.getApplication()));
    assertEquals("huge.tflite cannot be read: it has more than 2 GiB", error.getMessage());
    assertTrue(huge.delete());
  }

  @Test
  public void errorOfAnotherAppDoesNotEndThisOne() throws Exception {
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    Uri uri = Uri.parse("content://others/bad.tflite");
    shadowOf(activity.getContentResolver()).registerInputStreamSupplier(uri, () -> {
      throw new StackOverflowError("theirs");
    });
    pick(activity, uri);
    assertEquals("theirs", Stage.text(activity, R.id.failure_text));
  }

  /** What was opened under a name stays if the next file of that name is none, and no part of a file is left. */
  @Test
  public void damagedFileDoesNotReplaceAGoodOne() throws Exception {
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    Uri uri = Uri.parse("content://others/a.tflite");
    byte[][] content = {content("no_lce.tflite")};
    shadowOf(activity.getContentResolver()).registerInputStreamSupplier(uri,
        () -> new java.io.ByteArrayInputStream(content[0]));
    pick(activity, uri);
    long size = session.chosen().bytes();
    content[0] = content("cut.tflite");
    pick(activity, uri);
    assertTrue(Stage.isShown(activity, R.id.failure));
    assertEquals(size, session.chosen().bytes());
    assertArrayEquals(new String[] {"a.tflite"}, new java.io.File(activity.getCacheDir(), "opened").list());
  }

  /** Two networks of one name would be mixed up, above all in a comparison. */
  @Test
  public void fileWithTheNameOfABundledNetworkGetsAnother() throws Exception {
    java.nio.file.Path copy = fixture("ResNet20.tflite");
    java.nio.file.Files.copy(fixture("no_lce.tflite"), copy, java.nio.file.StandardCopyOption.REPLACE_EXISTING);
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    pick(activity, foreign("ResNet20.tflite"));
    pick(activity, foreign("ResNet20.tflite")); // Once more is no second one.
    assertEquals("ResNet20 (file)", session.chosen().name);
    RadioGroup networks = activity.findViewById(R.id.networks);
    assertEquals(session.sources().size(), networks.getChildCount());
    assertTrue(network(activity, networks.getChildCount() - 1).getText().toString().startsWith("ResNet20 (file)\n"));
  }

  /** As when Android ends the process behind another app. */
  @Test
  public void choicesSurviveTheEndOfTheProcess() throws Exception {
    ActivityController<BenchmarkActivity> controller = open(BenchmarkActivity.class);
    pick(controller.get(), foreign("no_lce.tflite"));
    controller.get().<EditText>findViewById(R.id.runs).setText("123");
    controller.get().<EditText>findViewById(R.id.warm_up).setText("4");
    controller.get().<Switch>findViewById(R.id.fuse).setChecked(false);
    session.numThreads = 2;
    session.implementation = "popcnt";
    session.tried = "RepReActNetA";
    Bundle state = new Bundle();
    controller.saveInstanceState(state).pause().stop().destroy();
    Session.restart(machine);
    BenchmarkActivity activity = Robolectric.buildActivity(BenchmarkActivity.class).setup(state).get();
    Session another = Session.of(activity);
    assertNotSame(session, another);
    assertEquals("no_lce", another.chosen().name);
    assertEquals("123", Stage.text(activity, R.id.runs));
    assertEquals("4", Stage.text(activity, R.id.warm_up));
    assertEquals(1, activity.<Spinner>findViewById(R.id.threads).getSelectedItemPosition());
    assertEquals(2, activity.<Spinner>findViewById(R.id.implementation).getSelectedItemPosition());
    assertFalse(activity.<Switch>findViewById(R.id.fuse).isChecked());
    assertEquals("RepReActNetA", another.tried);
    session = another;
  }

  /** Run stays above a keyboard, which does not come by itself. */
  @Test
  @SuppressWarnings("deprecation") // For apps that target API 35, which this one does not.
  public void keyboardHidesNothing() throws Exception {
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    int mode = activity.getPackageManager().getActivityInfo(activity.getComponentName(), 0).softInputMode;
    assertEquals(WindowManager.LayoutParams.SOFT_INPUT_ADJUST_RESIZE,
        mode & WindowManager.LayoutParams.SOFT_INPUT_MASK_ADJUST);
    assertEquals(WindowManager.LayoutParams.SOFT_INPUT_STATE_HIDDEN,
        mode & WindowManager.LayoutParams.SOFT_INPUT_MASK_STATE);
  }

  /** Each control has a text, a description or a label; a description on a list would hide its value. */
  @Test
  public void talkBackFindsANameForEachControl() throws Exception {
    for (Class<? extends Activity> screen : Arrays.asList(BenchmarkActivity.class, CompareActivity.class,
        TryActivity.class, DeviceActivity.class)) {
      Activity activity = open(screen).get();
      Stage.awaitRest(session);
      Set<Integer> labelled = new HashSet<>();
      List<View> views = new ArrayList<>(Collections.singletonList(activity.findViewById(android.R.id.content)));
      for (int i = 0; i < views.size(); i++) {
        View view = views.get(i);
        labelled.add(view.getLabelFor());
        for (int j = 0; view instanceof ViewGroup && j < ((ViewGroup) view).getChildCount(); j++) {
          views.add(((ViewGroup) view).getChildAt(j));
        }
      }
      int controls = 0;
      for (View view : views) {
        boolean holdsAValue = view instanceof Spinner || view instanceof EditText;
        if (!view.isShown() || !view.isClickable() && !holdsAValue) {
          continue;
        }
        controls++;
        boolean named = labelled.contains(view.getId()) && view.getId() != View.NO_ID;
        if (holdsAValue) {
          assertTrue(screen + " " + view, named && view.getContentDescription() == null);
        } else {
          assertTrue(screen + " " + view, named || view.getContentDescription() != null
              || !Stage.texts(view).trim().isEmpty());
        }
      }
      assertTrue(screen.toString(), controls >= 4);
    }
  }

  @Test
  public void pickingNothingChangesNothing() {
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    activity.findViewById(R.id.open).performClick();
    shadowOf(activity).receiveResult(shadowOf(activity).getNextStartedActivity(), Activity.RESULT_CANCELED, null);
    assertFalse(Stage.isShown(activity, R.id.failure));
  }

  @Test
  public void largePagesAreToldBeforeAnythingIsLoaded() throws Exception {
    machine.page = 16384;
    machine.loads = false;
    BenchmarkActivity activity = open(BenchmarkActivity.class).get();
    assertTrue(Stage.isShown(activity, R.id.notice));
    assertTrue(Stage.text(activity, R.id.notice).contains("memory pages of 16 KiB"));
    activity.findViewById(R.id.run).performClick();
    Stage.awaitRest(session);
    assertTrue(Stage.text(activity, R.id.failure_text).contains("memory pages of 16 KiB"));
  }

  @Test
  public void ordinaryPagesAreNotTold() {
    assertFalse(Stage.isShown(open(BenchmarkActivity.class).get(), R.id.notice));
  }

  @Test
  public void allScreensAreReachedFromEachOther() {
    Class<?>[] screens = {BenchmarkActivity.class, CompareActivity.class, TryActivity.class, DeviceActivity.class};
    for (Class<?> from : screens) {
      Activity activity = open(from.asSubclass(Activity.class)).get();
      ViewGroup navigation = activity.findViewById(R.id.navigation);
      assertEquals(screens.length, navigation.getChildCount());
      for (int i = 0; i < screens.length; i++) {
        View entry = navigation.getChildAt(i);
        assertTrue(entry.isShown());
        assertEquals(screens[i] == from, entry.isSelected());
        entry.performClick();
        Intent started = shadowOf(activity).getNextStartedActivity();
        assertEquals(screens[i] == from ? null : screens[i].getName(),
            started == null ? null : started.getComponent().getClassName());
      }
    }
  }
}
