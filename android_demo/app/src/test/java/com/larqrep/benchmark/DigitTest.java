package com.larqrep.benchmark;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.junit.Test;

/** The form of drawn digits. */
public final class DigitTest {
  private static final List<float[]> SEVEN = Arrays.asList(new float[] {0, 0, 0.5f, 0}, new float[] {0.5f, 0, 0.2f, 1});

  private static int ink(int[] levels) {
    return Arrays.stream(levels).sum();
  }

  @Test
  public void inkIsThatOfTheData() {
    for (List<float[]> lines : Arrays.asList(SEVEN, Collections.singletonList(new float[] {3, 3, 3, 90}),
        Collections.singletonList(new float[] {0.5f, 0.5f, 0.5f, 0.5f}))) {
      assertEquals(Digit.INK, ink(Digit.levels(lines)), 8); // Dots may be equally far.
    }
  }

  @Test
  public void digitIsAsHighAsThePictureWhereverItWasDrawn() {
    int[] levels = Digit.levels(SEVEN);
    for (int row : new int[] {0, 7}) {
      assertTrue(Arrays.stream(levels, 8 * row, 8 * row + 8).max().getAsInt() >= 8);
    }
    float[][] moved = {{10, 50, 15, 50}, {15, 50, 12, 60}};
    assertArrayEquals(levels, Digit.levels(Arrays.asList(moved)));
  }

  @Test
  public void widePicturesAreSqueezedAndDashesStayDashes() {
    int[] dash = Digit.levels(Collections.singletonList(new float[] {0, 0, 1, 0}));
    assertEquals(0, Arrays.stream(dash, 0, 8).sum());
    int[] wide = Digit.levels(Arrays.asList(new float[] {0, 0, 3, 0}, new float[] {0, 1, 3, 1}));
    for (int row = 0; row < 8; row++) {
      assertTrue(wide[8 * row] <= 8); // The outer columns of the data are nearly empty.
    }
  }

  @Test
  public void pictureIsEnlargedAsForTraining() {
    // The first row of tf.image.resize of a column of ink, from 8 to 16.
    int[] levels = new int[64];
    for (int row = 0; row < 8; row++) {
      levels[8 * row + 2] = 16;
    }
    int[] pixels = Digit.picture(levels, 16, 16);
    float[] expected = {0, 0, 0, 0.25f, 0.75f, 0.75f, 0.25f, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (int i = 0; i < 256; i++) {
      assertEquals(0xFF000000 | Math.round(expected[i % 16] * 255) * 0x010101, pixels[i]);
    }
  }
}
