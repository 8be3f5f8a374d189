package com.larqrep.benchmark;

import java.util.Arrays;
import java.util.List;

/**
 * A drawn digit in the form of the digits that networks here are trained on.
 *
 * <p>Those are scikit-learn's: a digit as high as a bitmap of 32 x 32 dots, with about the same ink in each, is counted
 * in blocks of 4 x 4 dots, which gives 8 x 8 levels from 0 to 16. For a network they are enlarged bilinearly.
 */
final class Digit {
  private static final int DOTS = 32;
  private static final int LEVELS = 8;
  private static final int BLOCK = DOTS / LEVELS;
  /** Dots of ink in a digit of the data, on average. */
  static final int INK = 312;
  /** Widest digit in dots. */
  private static final float WIDEST = 24;
  /** Distance of the lines' middle from the edge, in dots. */
  private static final float PEN = 1.5f;
  /** Narrow digits are widened by up to this: those of the data are about equally wide. */
  private static final float WIDENING = 1.5f;

  private Digit() {}

  /**
   * Counts the ink of a drawing.
   *
   * @param lines straight lines {@code x0, y0, x1, y1} in any unit, y downwards; at least one
   * @return 8 rows of 8 levels from 0 to 16
   */
  static int[] levels(List<float[]> lines) {
    float left = Float.POSITIVE_INFINITY;
    float top = left;
    float right = Float.NEGATIVE_INFINITY;
    float bottom = right;
    for (float[] line : lines) {
      left = Math.min(left, Math.min(line[0], line[2]));
      right = Math.max(right, Math.max(line[0], line[2]));
      top = Math.min(top, Math.min(line[1], line[3]));
      bottom = Math.max(bottom, Math.max(line[1], line[3]));
    }
    float scaleY = (DOTS - 2 * PEN) / Math.max(bottom - top, 1e-6f);
    float scaleX = Math.min(WIDENING * scaleY, (WIDEST - 2 * PEN) / Math.max(right - left, 1e-6f));
    scaleY = Math.min(scaleY, 3 * scaleX); // A dash stays one.
    float[] distances = new float[DOTS * DOTS];
    Arrays.fill(distances, Float.POSITIVE_INFINITY);
    for (float[] line : lines) {
      float x0 = (line[0] - (left + right) / 2) * scaleX + DOTS / 2f;
      float x1 = (line[2] - (left + right) / 2) * scaleX + DOTS / 2f;
      float y0 = (line[1] - (top + bottom) / 2) * scaleY + DOTS / 2f;
      float y1 = (line[3] - (top + bottom) / 2) * scaleY + DOTS / 2f;
      for (int i = 0; i < distances.length; i++) {
        distances[i] = Math.min(distances[i], distance(i % DOTS + 0.5f, i / DOTS + 0.5f, x0, y0, x1, y1));
      }
    }
    // The dots nearest to the lines are inked, so that thin and thick pens give the ink of the data.
    float[] sorted = distances.clone();
    Arrays.sort(sorted);
    int[] levels = new int[LEVELS * LEVELS];
    for (int i = 0; i < distances.length; i++) {
      if (distances[i] <= sorted[INK - 1]) {
        levels[i / DOTS / BLOCK * LEVELS + i % DOTS / BLOCK]++;
      }
    }
    return levels;
  }

  /** Square of the distance of a point from a line between two others. */
  private static float distance(float x, float y, float x0, float y0, float x1, float y1) {
    float dx = x1 - x0;
    float dy = y1 - y0;
    float length = dx * dx + dy * dy;
    float share = length == 0 ? 0 : Math.max(0, Math.min(1, ((x - x0) * dx + (y - y0) * dy) / length));
    float toX = x0 + share * dx - x;
    float toY = y0 + share * dy - y;
    return toX * toX + toY * toY;
  }

  /**
   * Enlarges levels to a grey picture.
   *
   * @return its pixels as opaque {@code 0xAARRGGBB}, white ink on black
   */
  static int[] picture(int[] levels, int width, int height) {
    int[] pixels = new int[width * height];
    for (int y = 0; y < height; y++) {
      for (int x = 0; x < width; x++) {
        float fromX = Math.max(0, Math.min(LEVELS - 1, (x + 0.5f) * LEVELS / width - 0.5f));
        float fromY = Math.max(0, Math.min(LEVELS - 1, (y + 0.5f) * LEVELS / height - 0.5f));
        int x0 = Math.min((int) fromX, LEVELS - 2);
        int y0 = Math.min((int) fromY, LEVELS - 2);
        float partX = fromX - x0;
        float partY = fromY - y0;
        int at = y0 * LEVELS + x0;
        float above = levels[at] * (1 - partX) + levels[at + 1] * partX;
        float below = levels[at + LEVELS] * (1 - partX) + levels[at + LEVELS + 1] * partX;
        int grey = Math.min(255, Math.round((above * (1 - partY) + below * partY) / 16 * 255));
        pixels[y * width + x] = 0xFF000000 | grey * 0x010101;
      }
    }
    return pixels;
  }
}
