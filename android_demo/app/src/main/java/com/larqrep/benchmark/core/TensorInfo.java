package com.larqrep.benchmark.core;

import java.nio.ByteBuffer;
import java.util.Arrays;
import org.tensorflow.lite.DataType;
import org.tensorflow.lite.Tensor;

/** What is known of an input or an output of a network. */
public final class TensorInfo {
  public final String name;
  public final DataType type;
  private final int[] shape;
  /** Real value of one step of an integer; 0 for a type that is not quantized. */
  public final float scale;
  /** The integer of the real value 0. */
  public final int zeroPoint;

  public TensorInfo(String name, DataType type, int[] shape, float scale, int zeroPoint) {
    this.name = name;
    this.type = type;
    this.shape = shape.clone();
    this.scale = scale;
    this.zeroPoint = zeroPoint;
  }

  static TensorInfo of(Tensor tensor) {
    Tensor.QuantizationParams quantization = tensor.quantizationParams();
    return new TensorInfo(tensor.name(), tensor.dataType(), tensor.shape(), quantization.getScale(),
        quantization.getZeroPoint());
  }

  /** Its shape, for images (number, height, width, channels). */
  public int[] shape() {
    return shape.clone();
  }

  /** How many numbers it has. */
  public int count() {
    int count = 1;
    for (int side : shape) {
      count = Math.multiplyExact(count, side);
    }
    return count;
  }

  /** All numbers in a buffer of native order; integers as they are (beyond 2^24 rounded), booleans as 0 and 1. */
  float[] read(ByteBuffer buffer) {
    float[] values = new float[count()];
    buffer.rewind();
    for (int i = 0; i < values.length; i++) {
      switch (type) {
        case FLOAT32:
          values[i] = buffer.getFloat();
          break;
        case INT64:
          values[i] = buffer.getLong();
          break;
        case INT32:
          values[i] = buffer.getInt();
          break;
        case INT16:
          values[i] = buffer.getShort();
          break;
        case UINT8:
          values[i] = buffer.get() & 255;
          break;
        default: // int8 and bool
          values[i] = buffer.get();
      }
    }
    return values;
  }

  /** Real values of numbers as {@link Engine#values} has them: quantized integers become what they stand for. */
  public float[] real(float[] numbers) {
    float[] values = numbers.clone();
    for (int i = 0; scale != 0 && type != DataType.FLOAT32 && i < values.length; i++) {
      values[i] = (values[i] - zeroPoint) * scale;
    }
    return values;
  }

  @Override
  public String toString() {
    return name + " " + Arrays.toString(shape) + " " + type;
  }
}
