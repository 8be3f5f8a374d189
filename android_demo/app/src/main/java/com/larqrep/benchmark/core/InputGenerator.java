package com.larqrep.benchmark.core;

import java.nio.ByteBuffer;
import org.tensorflow.lite.DataType;

/**
 * Makes the inputs of a benchmark from integers alone, so that a desktop and a phone have the same ones.
 *
 * <p>Value i of the n values of input number k comes from the 32-bit hash of (k * n + i) * 0x9E3779B9 by shifts and
 * multiplications ("lowbias32"): float32 has its upper 24 bits as a value in [-2, 2), 8-bit types have its upper 8
 * bits, int32 and int64 the same from 0 to 255, bool its highest bit.
 */
public final class InputGenerator {
  private InputGenerator() {}

  /** Whether there are values of a type. */
  public static boolean supports(DataType type) {
    return type != DataType.STRING && type != DataType.INT16;
  }

  /**
   * Fills a buffer from its beginning and leaves its position there.
   *
   * @param buffer a buffer in native order for {@code count} values
   * @param number which of the inputs, from 0 on
   * @throws IllegalArgumentException if there are no values of the type
   */
  public static void fill(ByteBuffer buffer, DataType type, int count, int number) {
    if (!supports(type)) {
      throw new IllegalArgumentException("There are no values for an input of the type " + type + ".");
    }
    buffer.rewind();
    for (int i = 0; i < count; i++) {
      int hash = hash(number * count + i); // As in the desktop's twin, it begins again after 2^32.
      switch (type) {
        case FLOAT32:
          buffer.putFloat((hash >>> 8) * 0x1p-22f - 2);
          break;
        case INT32:
          buffer.putInt(hash >>> 24);
          break;
        case INT64:
          buffer.putLong(hash >>> 24);
          break;
        case BOOL:
          buffer.put((byte) (hash >>> 31));
          break;
        default: // Both 8-bit types have the same bits.
          buffer.put((byte) (hash >>> 24));
      }
    }
    buffer.rewind();
  }

  private static int hash(int i) {
    int h = i * 0x9E3779B9;
    h = (h ^ h >>> 16) * 0x21F0AAAD;
    h = (h ^ h >>> 15) * 0x735A2D97;
    return h ^ h >>> 15;
  }
}
