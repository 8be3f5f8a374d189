package com.larqrep.benchmark;

import android.app.Activity;
import android.content.ContentResolver;
import android.net.Uri;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.Path;
import java.nio.file.Paths;
import org.junit.After;
import org.junit.Assume;
import org.junit.Before;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.Shadows;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.annotation.Config;
import org.robolectric.annotation.GraphicsMode;
import org.robolectric.shadows.ShadowLog;

/** A fresh session with a fake machine for each test, and files that tests/test_screens.py has made. */
@RunWith(RobolectricTestRunner.class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
@Config(sdk = 35, qualifiers = Stage.PORTRAIT)
public abstract class ScreenTest {
  final FakeMachine machine = new FakeMachine();
  Session session;

  @Before
  public void begin() {
    ShadowLog.clear();
    Session.restart(machine());
    session = Session.of(RuntimeEnvironment.getApplication());
    session.runs = "7";
    session.warmUp = "2";
  }

  /** What runs networks. */
  Machine machine() {
    return machine;
  }

  @After
  public void end() throws Exception {
    if (session.running() != null) {
      session.cancel();
      if (machine.permits != null) {
        machine.permits.release(1000);
      }
      machine.thermal = 0;
      Stage.awaitRest(session);
    }
  }

  static <T extends Activity> ActivityController<T> open(Class<T> screen) {
    return Robolectric.buildActivity(screen).setup();
  }

  /** A file of tests/test_screens.py; without them, as in Gradle's run, the test is skipped. */
  static Path fixture(String name) {
    Assume.assumeNotNull(System.getProperty("larqrep.fixtures"));
    return Paths.get(System.getProperty("larqrep.fixtures"), name);
  }

  static byte[] content(String name) throws IOException {
    return java.nio.file.Files.readAllBytes(fixture(name));
  }

  /** An address of another app at which a file is to be had. */
  static Uri foreign(String name) throws IOException {
    byte[] content = content(name);
    Uri uri = Uri.parse("content://others/" + name);
    ContentResolver resolver = RuntimeEnvironment.getApplication().getContentResolver();
    Shadows.shadowOf(resolver).registerInputStreamSupplier(uri, () -> new ByteArrayInputStream(content));
    return uri;
  }
}
