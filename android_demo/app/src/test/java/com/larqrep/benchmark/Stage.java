package com.larqrep.benchmark;

import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.graphics.Bitmap;
import android.graphics.Canvas;
import android.graphics.Rect;
import android.os.Looper;
import android.view.MotionEvent;
import android.view.View;
import android.view.ViewGroup;
import android.widget.Spinner;
import android.widget.TextView;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.time.Duration;
import java.util.concurrent.Callable;

/** What tests do with screens. */
final class Stage {
  static final String PORTRAIT = "w411dp-h731dp-xhdpi";
  static final String LANDSCAPE = "w731dp-h411dp-land-xhdpi";
  static final String LANDSCAPE_NIGHT = "w731dp-h411dp-land-night-xhdpi";
  /** An eight, for {@link #draw}: what the fake machine reads in everything. */
  static final float[] EIGHT = {.62f, .2f, .5f, .1f, .36f, .17f, .36f, .32f, .5f, .46f, .64f, .6f, .66f, .78f,
      .52f, .9f, .36f, .8f, .36f, .63f, .5f, .47f, .63f, .34f, .62f, .2f};

  private static final long PATIENCE_MS = 60_000;

  private Stage() {}

  /** Lets the main thread work until something is true. */
  static void await(String what, Callable<Boolean> condition) throws Exception {
    long end = System.currentTimeMillis() + PATIENCE_MS;
    shadowOf(Looper.getMainLooper()).idle();
    while (!condition.call()) {
      assertTrue("No " + what + " within a minute.", System.currentTimeMillis() < end);
      Thread.sleep(5);
      shadowOf(Looper.getMainLooper()).idleFor(Duration.ofMillis(100));
    }
  }

  /** Waits until the session has nothing to do. */
  static void awaitRest(Session session) throws Exception {
    boolean[] idle = {false};
    session.execute(() -> session.post(() -> idle[0] = true));
    await("rest", () -> idle[0] && session.running() == null);
  }

  /** Chooses the network to try, and waits until it is loaded. */
  static void choose(Session session, TryActivity activity, int place) throws Exception {
    activity.<Spinner>findViewById(R.id.network).setSelection(place);
    String model = session.sources().get(place).model;
    await("choice", () -> model.equals(session.tried));
    awaitRest(session);
  }

  static String text(Activity activity, int id) {
    return activity.<TextView>findViewById(id).getText().toString();
  }

  static boolean isShown(Activity activity, int id) {
    return activity.findViewById(id).isShown();
  }

  /** All texts below a view that are shown, with a line for each. */
  static String texts(View view) {
    if (view.getVisibility() != View.VISIBLE) {
      return "";
    }
    StringBuilder text = new StringBuilder();
    if (view instanceof TextView) {
      text.append(((TextView) view).getText()).append('\n');
    }
    if (view instanceof ViewGroup) {
      for (int i = 0; i < ((ViewGroup) view).getChildCount(); i++) {
        text.append(texts(((ViewGroup) view).getChildAt(i)));
      }
    }
    return text.toString();
  }

  /** Draws with a finger along points in shares of the square's side. */
  static void draw(DrawView view, float... points) {
    float side = view.getHeight();
    float left = (view.getWidth() - side) / 2;
    for (int i = 0; i < points.length; i += 2) {
      int action = i == 0 ? MotionEvent.ACTION_DOWN : MotionEvent.ACTION_MOVE;
      view.dispatchTouchEvent(MotionEvent.obtain(0, i, action, left + points[i] * side, points[i + 1] * side, 0));
    }
    view.dispatchTouchEvent(MotionEvent.obtain(0, points.length, MotionEvent.ACTION_UP, 0, 0, 0));
  }

  /** The window as it would be seen. */
  static Bitmap picture(Activity activity) {
    shadowOf(Looper.getMainLooper()).idle();
    View window = activity.getWindow().getDecorView();
    Bitmap bitmap = Bitmap.createBitmap(window.getWidth(), window.getHeight(), Bitmap.Config.ARGB_8888);
    window.draw(new Canvas(bitmap));
    return bitmap;
  }

  /** Saves the window as a PNG, if the property larqrep.screens names a folder. */
  static Bitmap save(Activity activity, String name) throws IOException {
    Bitmap bitmap = picture(activity);
    String folder = System.getProperty("larqrep.screens");
    if (folder != null) {
      try (FileOutputStream stream = new FileOutputStream(new File(folder, name + ".png"))) {
        bitmap.compress(Bitmap.CompressFormat.PNG, 100, stream);
      }
    }
    return bitmap;
  }

  /** Where a view stands in the window. */
  static Rect place(Activity activity, int id) {
    View view = activity.findViewById(id);
    Rect place = new Rect(0, 0, view.getWidth(), view.getHeight());
    ((ViewGroup) activity.getWindow().getDecorView()).offsetDescendantRectToMyCoords(view, place);
    return place;
  }
}
