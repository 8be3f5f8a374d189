package com.larqrep.benchmark.core;

import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Locale;
import org.json.JSONObject;
import org.tensorflow.lite.DataType;

/**
 * The preparation of images for a file, as {@code lce-run --image} does it: resize, central crop, scaling,
 * normalisation.
 *
 * <p>An image is resized in proportion, bilinearly with antialiasing and to whole levels, until it just covers
 * size * resize / min(size), and cropped in the middle to size. The result is
 * (low + level / 255 * (high - low) - mean) / std. All is computed in float32 and in the order of larq_rep_runtime, so
 * that the same values are rounded to the same levels.
 */
public final class Preparation {
  /** Images normalised with the mean and the deviation of ImageNet are about -2.1 to 2.6. */
  private static final double[] IMAGENET_MEAN = {0.485, 0.456, 0.406};
  private static final double[] IMAGENET_STD = {0.229, 0.224, 0.225};

  private final int batch;
  private final int[] size;
  private final int channels;
  private final DataType type;
  private final float scale;
  private final int zeroPoint;
  private double resize;
  private double[] range = {0, 1};
  private double[] mean;
  private double[] std;
  private boolean mirrored;
  private String assumed = "";

  private Preparation(int[] shape, DataType type, float scale, int zeroPoint) {
    batch = shape[0];
    size = new int[] {shape[1], shape[2]};
    channels = shape[3];
    resize = Math.min(shape[1], shape[2]);
    this.type = type;
    // Without a scale the integers are levels, in int8 from -128.
    this.scale = scale == 0 ? 1 : scale;
    this.zeroPoint = scale != 0 ? zeroPoint : type == DataType.INT8 ? -128 : 0;
  }

  /**
   * The preparation for an input of a file.
   *
   * <p>For a file whose metadata have no "input", pixels in 0..1 are assumed. If it takes integers, that is the usual
   * preparation whose range comes closest to its input's: 0..1, -1..1, 0..255, or ImageNet's mean and deviation.
   *
   * @param metadata the file's, as {@link ModelFile#metadata}
   * @param input the input that takes images
   * @throws IllegalArgumentException if the input takes no images, or a value of the metadata is wrong
   */
  public static Preparation of(JSONObject metadata, TensorInfo input) {
    int[] shape = input.shape();
    boolean number = input.type != DataType.BOOL && input.type != DataType.STRING;
    if (shape.length != 4 || shape[3] != 1 && shape[3] != 3 || !number) {
      throw new IllegalArgumentException("Images need an input of numbers of the shape (N, height, width, 1 or 3), the "
          + "model has " + TextFormat.shape(shape) + " of " + input.type.toString().toLowerCase(Locale.ROOT) + ".");
    }
    Preparation preparation = new Preparation(shape, input.type, input.scale, input.zeroPoint);
    Metadata about = new Metadata(metadata, "");
    JSONObject stated = about.object("input");
    boolean mirrored = about.bool("mirrored_input", false); // Files of larq-rep 0.1 say no more of their input.
    if (stated != null) {
      preparation.read(new Metadata(stated, "input."), mirrored);
    } else {
      preparation.mirrored = mirrored;
      preparation.assume();
    }
    return preparation;
  }

  private void read(Metadata input, boolean otherwiseMirrored) {
    int least = Math.min(size[0], size[1]);
    String asInput = ", as the file's input has";
    input.integers("size", size, "[" + size[0] + ", " + size[1] + "]" + asInput);
    input.integers("crop", size, "[" + size[0] + ", " + size[1] + "]" + asInput);
    input.integer("channels", channels, channels + asInput);
    double[] statedRange = input.range("range");
    range = statedRange == null ? range : statedRange;
    String each = "a number for each channel (" + channels + ")";
    mean = input.numbers("mean", channels, Double.NEGATIVE_INFINITY, each);
    std = input.numbers("std", channels, Metadata.LEAST, each + ", all above 0");
    resize = input.from("resize", least);
    mirrored = input.bool("mirrored", otherwiseMirrored);
    if ((mean == null) != (std == null)) {
      throw new IllegalArgumentException("The metadata of the file say only one of input.mean and input.std, and they "
          + "go together. Convert the file again.");
    }
  }

  private void assume() {
    if (type == DataType.FLOAT32) {
      assumed = "assumed";
      return;
    }
    int bits = 8 * type.byteSize();
    double least = type == DataType.UINT8 ? 0 : -Math.scalb(1.0, bits - 1);
    double most = type == DataType.UINT8 ? 255 : type == DataType.INT64 ? Long.MAX_VALUE : -1 - least;
    double low = (least - zeroPoint) * scale;
    double high = (most - zeroPoint) * scale;
    double[][] ways = {{0, 1}, {-1, 1}, {0, 255}, {-2.1, 2.6}};
    int nearest = 0;
    for (int i = 1; i < (channels == 3 ? 4 : 3); i++) {
      nearest = distance(ways[i], low, high) < distance(ways[nearest], low, high) ? i : nearest;
    }
    if (nearest == 3) {
      mean = IMAGENET_MEAN.clone();
      std = IMAGENET_STD.clone();
    } else {
      range = ways[nearest];
    }
    assumed = "assumed, from the range of its input, " + TextFormat.number(low, 3) + " to "
        + TextFormat.number(high, 3);
  }

  private static double distance(double[] way, double low, double high) {
    return Math.abs(low - way[0]) + Math.abs(high - way[1]);
  }

  /** What it does, in words. */
  public String text() {
    int[] least = least();
    String text = "resized to cover " + least[0] + "x" + least[1] + ", cropped to " + size[0] + "x" + size[1] + ", in "
        + TextFormat.number(range[0], 6) + ".." + TextFormat.number(range[1], 6);
    if (mean != null) {
      text += ", less " + TextFormat.numbers(mean) + ", over " + TextFormat.numbers(std);
    }
    return text + (mirrored ? ", turned by 180 degrees" : "");
  }

  /** Why it is assumed; empty if the file says it. */
  public String assumed() {
    return assumed;
  }

  /** 3 for RGB, 1 for grey. */
  public int channels() {
    return channels;
  }

  /** Height and width that the resized image just covers. */
  private int[] least() {
    int shorter = Math.min(size[0], size[1]);
    return new int[] {(int) Math.rint(size[0] * resize / shorter), (int) Math.rint(size[1] * resize / shorter)};
  }

  /**
   * Writes an image into the buffer of the input, once for each image of its batch, and leaves its position there.
   *
   * @param argb upright pixels 0xAARRGGBB, row by row; their opacity is ignored
   * @param out a buffer in native order for the whole input
   */
  public void prepare(int[] argb, int width, int height, ByteBuffer out) {
    float[] levels = covering(argb, width, height);
    float low = (float) range[0];
    float span = (float) range[1] - low;
    out.rewind();
    for (int image = 0; image < batch; image++) {
      for (int i = 0; i < levels.length; i++) {
        int channel = i % channels;
        int pixel = i / channels;
        int place = mirrored ? (levels.length / channels - 1 - pixel) * channels + channel : i;
        float x = levels[place] * span / 255 + low;
        if (mean != null) {
          x = (x - (float) mean[channel]) / (float) std[channel];
        }
        put(out, x);
      }
    }
    out.rewind();
  }

  private void put(ByteBuffer out, float x) {
    if (type == DataType.FLOAT32) {
      out.putFloat(x);
      return;
    }
    float quantized = (float) Math.rint(x / scale) + zeroPoint;
    switch (type) {
      case INT8:
        out.put((byte) Math.max(-128, Math.min(127, quantized)));
        break;
      case UINT8:
        out.put((byte) (int) Math.max(0, Math.min(255, quantized)));
        break;
      case INT16:
        out.putShort((short) Math.max(-32768, Math.min(32767, quantized)));
        break;
      case INT32:
        out.putInt((int) quantized); // The cast saturates.
        break;
      default:
        out.putLong((long) quantized);
    }
  }

  /** The image resized and cropped: whole levels from 0 to 255, (height, width, channels). */
  private float[] covering(int[] argb, int width, int height) {
    int[] least = least();
    long[] cover = {least[0], least[1]};
    if ((long) height * least[1] >= (long) width * least[0]) {
      cover[0] = (long) height * least[1] / width;
    } else {
      cover[1] = (long) width * least[0] / height;
    }
    Taps rows = new Taps(height, cover[0], size[0]);
    Taps columns = new Taps(width, cover[1], size[1]);
    float[] levels = new float[size[0] * size[1] * channels];
    float[] line = new float[width * channels];
    for (int y = 0; y < size[0]; y++) {
      Arrays.fill(line, 0);
      for (int tap = 0; tap < rows.weights[y].length; tap++) {
        int start = (rows.starts[y] + tap) * width;
        float weight = rows.weights[y][tap];
        for (int x = 0; x < width; x++) {
          addLevels(line, x * channels, argb[start + x], weight);
        }
      }
      for (int x = 0; x < size[1]; x++) {
        for (int channel = 0; channel < channels; channel++) {
          float total = 0;
          for (int tap = 0; tap < columns.weights[x].length; tap++) {
            total += columns.weights[x][tap] * line[(columns.starts[x] + tap) * channels + channel];
          }
          levels[(y * size[1] + x) * channels + channel] = (float) Math.rint(total);
        }
      }
    }
    return levels;
  }

  private void addLevels(float[] line, int place, int argb, float weight) {
    int red = argb >> 16 & 255;
    int green = argb >> 8 & 255;
    int blue = argb & 255;
    if (channels == 1) {
      line[place] += weight * (red * 19595 + green * 38470 + blue * 7471 + 0x8000 >> 16); // PIL's "L".
    } else {
      line[place] += weight * red;
      line[place + 1] += weight * green;
      line[place + 2] += weight * blue;
    }
  }

  /**
   * For each pixel in the middle of a resized line: the first pixel of the line it is made of, and the weights.
   *
   * <p>The filter is a triangle, on each side as wide as a pixel of the line or of the result, whichever is wider.
   */
  private static final class Taps {
    final int[] starts;
    final float[][] weights;

    Taps(int source, long scaled, int count) {
      starts = new int[count];
      weights = new float[count][];
      float step = (float) (1 / (double) (float) ((double) scaled / source));
      float radius = Math.max(step, 1);
      long first = (long) Math.rint((scaled - count) / 2.0);
      for (int i = 0; i < count; i++) {
        float centre = ((float) (first + i) + 0.5f) * step;
        int start = clip(Math.ceil(centre - radius - 0.5f), source);
        int end = clip(Math.floor(centre + radius - 0.5f), source);
        float[] own = new float[end - start + 1];
        float sum = 0;
        for (int tap = 0; tap < own.length; tap++) {
          float distance = Math.abs((float) (start + tap) + 0.5f - centre) * (1 / radius);
          own[tap] = Math.max(1 - distance, 0);
          sum += own[tap];
        }
        for (int tap = 0; tap < own.length; tap++) {
          own[tap] *= 1 / sum;
        }
        starts[i] = start;
        weights[i] = own;
      }
    }

    private static int clip(double place, int source) {
      return (int) Math.max(0, Math.min(source - 1, place));
    }
  }
}
