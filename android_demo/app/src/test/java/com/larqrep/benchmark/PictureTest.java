package com.larqrep.benchmark;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import android.graphics.Bitmap;
import android.net.Uri;
import com.larqrep.benchmark.core.Preparation;
import com.larqrep.benchmark.core.TensorInfo;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import org.json.JSONObject;
import org.junit.Assert;
import org.junit.Test;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.Shadows;
import org.tensorflow.lite.DataType;

/** Pictures at addresses of other apps, against what the Python runtime makes of the same files. */
public final class PictureTest extends ScreenTest {
  private static Picture read(Uri uri) throws IOException {
    return Picture.read(RuntimeEnvironment.getApplication(), uri);
  }

  /** Of each file of the list: its metadata, the input's shape, and the numbers that Python makes. */
  @Test
  public void preparedPicturesAreThoseOfPython() throws Exception {
    String[] lines = new String(content("pictures.txt"), "UTF-8").split("\n");
    assertTrue(lines.length >= 3);
    for (String line : lines) {
      JSONObject about = new JSONObject(line);
      int[] shape = {1, about.getInt("height"), about.getInt("width"), about.getInt("channels")};
      TensorInfo input = new TensorInfo("input", DataType.FLOAT32, shape, 0, 0);
      Preparation preparation = Preparation.of(about.getJSONObject("metadata"), input);
      ByteBuffer buffer = ByteBuffer.allocateDirect(4 * input.count()).order(ByteOrder.nativeOrder());
      Picture picture = read(foreign(about.getString("file")));
      preparation.prepare(picture.argb, picture.width, picture.height, buffer);
      FloatBuffer expected = ByteBuffer.wrap(content(about.getString("expected"))).order(ByteOrder.LITTLE_ENDIAN)
          .asFloatBuffer();
      assertEquals(input.count(), expected.limit());
      double tolerance = about.getDouble("level") * 1.0001; // One level of 255, normalised.
      double worst = 0;
      for (int i = 0; i < expected.limit(); i++) {
        worst = Math.max(worst, Math.abs(expected.get(i) - buffer.asFloatBuffer().get(i)));
      }
      assertTrue(about.getString("file") + " is " + worst / about.getDouble("level") + " levels away",
          worst <= tolerance);
    }
  }

  /** All eight files show the same picture, each stored otherwise. */
  @Test
  public void allOrientationsAreTurnedUpright() throws Exception {
    Picture upright = read(foreign("orientation1.jpg"));
    for (int orientation = 2; orientation <= 8; orientation++) {
      Picture turned = read(foreign("orientation" + orientation + ".jpg"));
      assertEquals(upright.width, turned.width);
      assertEquals(upright.height, turned.height);
      long difference = 0;
      for (int i = 0; i < upright.argb.length; i++) {
        difference += Math.abs((upright.argb[i] & 255) - (turned.argb[i] & 255));
      }
      assertTrue("orientation " + orientation, difference < 4L * upright.argb.length);
    }
  }

  @Test
  public void largePictureIsReduced() throws Exception {
    Picture large = read(foreign("large.jpg"));
    assertTrue(large.reduction > 1);
    assertEquals(9000 / large.reduction, large.width, 1);
    assertEquals(6000 / large.reduction, large.height, 1);
    assertTrue(large.preview(1024).getWidth() <= 2048);
  }

  /** Of any form there is something to see, and something for the network. */
  @Test
  public void extremeFormsAreTaken() throws Exception {
    int[][] forms = {{1, 1}, {1, 5000}, {5000, 1}, {3, 4096}};
    TensorInfo input = new TensorInfo("input", DataType.FLOAT32, new int[] {1, 16, 24, 3}, 0, 0);
    Preparation preparation = Preparation.of(new JSONObject(), input);
    for (int[] form : forms) {
      Bitmap bitmap = Bitmap.createBitmap(form[0], form[1], Bitmap.Config.ARGB_8888);
      bitmap.eraseColor(0xFF336699);
      ByteArrayOutputStream png = new ByteArrayOutputStream();
      bitmap.compress(Bitmap.CompressFormat.PNG, 100, png);
      Uri uri = Uri.parse("content://others/form.png");
      Shadows.shadowOf(RuntimeEnvironment.getApplication().getContentResolver()).registerInputStreamSupplier(uri,
          () -> new ByteArrayInputStream(png.toByteArray()));
      Picture picture = read(uri);
      assertEquals(form[0], picture.width);
      assertEquals(form[1], picture.height);
      assertEquals(0xFF336699, picture.preview(1024).getPixel(0, 0));
      ByteBuffer buffer = ByteBuffer.allocateDirect(4 * input.count()).order(ByteOrder.nativeOrder());
      preparation.prepare(picture.argb, picture.width, picture.height, buffer);
      assertEquals(0x33 / 255f, buffer.getFloat(0), 1e-6);
      assertEquals(0x99 / 255f, buffer.getFloat(4 * input.count() - 4), 1e-6);
    }
  }

  @Test
  public void whatIsNoPictureIsRefused() throws Exception {
    for (String name : new String[] {"cut.tflite", "pictures.txt"}) {
      Uri uri = foreign(name);
      Assert.assertThrows(IOException.class, () -> read(uri));
    }
    Assert.assertThrows(IOException.class, () -> read(Uri.parse("content://others/gone.png")));
  }
}
