package com.larqrep.benchmark;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.content.Intent;
import android.graphics.Bitmap;
import android.graphics.drawable.BitmapDrawable;
import android.net.Uri;
import android.provider.MediaStore;
import android.widget.ImageView;
import java.nio.FloatBuffer;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import org.junit.Test;
import org.robolectric.android.controller.ActivityController;

/** Drawing a digit, and pictures from other apps. */
public final class TryActivityTest extends ScreenTest {
  private TryActivity choose(int network) throws Exception {
    TryActivity activity = open(TryActivity.class).get();
    Stage.choose(session, activity, network);
    return activity;
  }

  @Test
  public void drawingReachesTheNetworkAtOnce() throws Exception {
    TryActivity activity = choose(0);
    assertEquals("Draw a digit", Stage.text(activity, R.id.answer));
    assertFalse(Stage.isShown(activity, R.id.gallery));
    Stage.draw(activity.findViewById(R.id.draw), Stage.EIGHT);
    Stage.awaitRest(session);
    FloatBuffer input = machine.input.asFloatBuffer();
    assertEquals(256, input.limit());
    float ink = 0;
    for (int i = 0; i < 256; i++) {
      assertTrue(input.get(i) >= 0 && input.get(i) <= 1);
      ink += input.get(i);
    }
    assertEquals(Digit.INK / 16f * 4 / 16 * 16 / 4, ink / 256 * 64, 1.5); // As dark as the 8 x 8 levels.
    String[] top = Stage.texts(activity.findViewById(R.id.top)).trim().split("\n");
    assertEquals(6, top.length);
    assertEquals(top[0], Stage.text(activity, R.id.answer));
    assertTrue(Stage.text(activity, R.id.answer_time).matches("[0-9.]+ ms, 1 thread"));
    activity.findViewById(R.id.clear).performClick();
    Stage.awaitRest(session);
    assertEquals("Draw a digit", Stage.text(activity, R.id.answer));
  }

  @Test
  public void drawingSurvivesRotation() throws Exception {
    ActivityController<TryActivity> controller = open(TryActivity.class);
    Stage.awaitRest(session);
    Stage.draw(controller.get().findViewById(R.id.draw), Stage.EIGHT);
    Stage.awaitRest(session);
    String answer = Stage.text(controller.get(), R.id.answer);
    TryActivity turned = controller.recreate().get();
    Stage.awaitRest(session);
    assertEquals(Stage.EIGHT.length / 2, turned.<DrawView>findViewById(R.id.draw).lines().size());
    assertEquals(answer, Stage.text(turned, R.id.answer));
    controller.pause().stop();
    Stage.awaitRest(session);
    assertEquals(machine.opened.size(), machine.closed); // No network stays loaded.
  }

  @Test
  public void answerWaitsForARunningBenchmark() throws Exception {
    TryActivity activity = choose(0);
    machine.permits = new Semaphore(2);
    session.start(session.options(false), java.util.Collections.singletonList(session.chosen()));
    Stage.await("2 runs", () -> session.running().done == 2);
    Stage.draw(activity.findViewById(R.id.draw), Stage.EIGHT);
    Stage.await("remark", () -> Stage.text(activity, R.id.remark).startsWith("A benchmark is running"));
    machine.permits.release(100);
    Stage.awaitRest(session);
    Stage.awaitRest(session);
    assertFalse(Stage.text(activity, R.id.answer).equals("Draw a digit"));
  }

  @Test
  public void pictureOfTheGalleryReachesTheNetwork() throws Exception {
    TryActivity activity = choose(2);
    assertTrue(Stage.isShown(activity, R.id.gallery));
    assertFalse(Stage.isShown(activity, R.id.draw));
    assertTrue(Stage.text(activity, R.id.remark).startsWith("This network is untrained"));
    activity.findViewById(R.id.gallery).performClick();
    Intent asked = shadowOf(activity).getNextStartedActivity();
    assertEquals(Intent.ACTION_GET_CONTENT, asked.getAction());
    assertEquals("image/*", asked.getType());
    shadowOf(activity).receiveResult(asked, Activity.RESULT_OK, new Intent().setData(foreign("turned.jpg")));
    Stage.awaitRest(session);
    Stage.awaitRest(session);
    assertEquals(224 * 224 * 3, machine.input.asFloatBuffer().limit());
    assertTrue(Stage.text(activity, R.id.answer).startsWith("class "));
    Bitmap shown = ((BitmapDrawable) activity.<ImageView>findViewById(R.id.picture).getDrawable()).getBitmap();
    assertTrue(shown.getHeight() > shown.getWidth()); // It was stored lying.
  }

  @Test
  public void damagedPictureIsTold() throws Exception {
    TryActivity activity = choose(2);
    activity.findViewById(R.id.gallery).performClick();
    shadowOf(activity).receiveResult(shadowOf(activity).getNextStartedActivity(), Activity.RESULT_OK,
        new Intent().setData(foreign("cut.tflite")));
    Stage.awaitRest(session);
    Stage.awaitRest(session);
    assertEquals("It failed", Stage.text(activity, R.id.answer));
    assertTrue(Stage.text(activity, R.id.remark).startsWith("The picture cannot be read: "));
  }

  /** The screen that is there when the picture has been read shows it; the one that asked is gone. */
  @Test
  public void pictureThatIsReadDuringARotationIsShown() throws Exception {
    ActivityController<TryActivity> controller = open(TryActivity.class);
    Stage.choose(session, controller.get(), 2);
    controller.get().findViewById(R.id.gallery).performClick();
    CountDownLatch turned = new CountDownLatch(1);
    session.execute(() -> {
      try {
        turned.await();
      } catch (InterruptedException error) {
        throw new AssertionError(error);
      }
    });
    shadowOf(controller.get()).receiveResult(shadowOf(controller.get()).getNextStartedActivity(), Activity.RESULT_OK,
        new Intent().setData(foreign("turned.jpg")));
    TryActivity activity = controller.recreate().get();
    turned.countDown();
    Stage.awaitRest(session);
    Stage.awaitRest(session);
    assertTrue(Stage.text(activity, R.id.answer).startsWith("class "));
    assertNotNull(activity.<ImageView>findViewById(R.id.picture).getDrawable());
    controller.pause().stop().destroy();
    Stage.awaitRest(session);
    assertEquals(machine.opened.size(), machine.closed); // The screen that asked has loaded nothing again.
  }

  @Test
  public void cameraThatGivesNothingIsTold() throws Exception {
    TryActivity activity = choose(2);
    activity.findViewById(R.id.camera).performClick();
    shadowOf(activity).receiveResult(shadowOf(activity).getNextStartedActivity(), Activity.RESULT_OK, null);
    assertEquals("The camera app has given no picture.",
        org.robolectric.shadows.ShadowToast.getTextOfLatestToast());
  }

  @Test
  public void cameraWritesIntoOurFile() throws Exception {
    TryActivity activity = choose(2);
    activity.findViewById(R.id.camera).performClick();
    Intent asked = shadowOf(activity).getNextStartedActivity();
    assertEquals(MediaStore.ACTION_IMAGE_CAPTURE, asked.getAction());
    Uri target = asked.getParcelableExtra(MediaStore.EXTRA_OUTPUT, Uri.class);
    assertEquals(target, asked.getClipData().getItemAt(0).getUri());
    assertTrue((asked.getFlags() & Intent.FLAG_GRANT_WRITE_URI_PERMISSION) != 0);
    assertEquals("image/jpeg", activity.getContentResolver().getType(target));
    java.nio.file.Files.copy(fixture("turned.jpg"), PictureProvider.file(activity).toPath());
    shadowOf(activity).receiveResult(asked, Activity.RESULT_OK, null);
    Stage.awaitRest(session);
    Stage.awaitRest(session);
    assertNotNull(machine.input);
    assertEquals(300, session.picture.width);
    assertEquals(400, session.picture.height);
  }

  @Test
  public void smallPictureIsTakenIfTheCameraGivesNoOther() throws Exception {
    TryActivity activity = choose(2);
    activity.findViewById(R.id.camera).performClick();
    Bitmap small = Bitmap.createBitmap(30, 20, Bitmap.Config.ARGB_8888);
    shadowOf(activity).receiveResult(shadowOf(activity).getNextStartedActivity(), Activity.RESULT_OK,
        new Intent().putExtra("data", small));
    Stage.awaitRest(session);
    assertEquals(30, session.picture.width);
  }

  @Test
  public void choiceOfTheFirstScreenCounts() throws Exception {
    session.numThreads = 2;
    session.implementation = "portable";
    session.fuse = false;
    choose(0);
    assertEquals("portable", machine.opened.get(machine.opened.size() - 1).implementation);
    assertEquals(2, machine.opened.get(machine.opened.size() - 1).numThreads);
    assertFalse(machine.opened.get(machine.opened.size() - 1).fuse);
  }

  @Test
  public void unexpectedErrorIsTold() throws Exception {
    machine.error = new StackOverflowError("too deep");
    assertEquals("too deep", Stage.text(choose(1), R.id.remark));
  }

  @Test
  public void failureIsTold() throws Exception {
    machine.failure = "TFLite does not run it.";
    TryActivity activity = choose(1);
    assertEquals(machine.failure, Stage.text(activity, R.id.remark));
  }
}
