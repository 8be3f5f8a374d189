package com.larqrep.benchmark;

import com.larqrep.benchmark.core.EngineException;
import com.larqrep.benchmark.core.Labels;
import com.larqrep.benchmark.core.Model;
import com.larqrep.benchmark.core.Preparation;
import com.larqrep.benchmark.core.TensorInfo;
import java.io.Closeable;
import java.util.ArrayList;
import java.util.List;

/** A network that takes pictures. For the thread of the session. */
final class Classifier implements Closeable {
  /** What a network says of a picture. */
  static final class Answer {
    /** The largest values, the largest first. */
    final List<Labels.Answer> top;
    /** Their real values; those of an integer output are steps. */
    final List<Float> values;
    /** Whether the values are shares of one. */
    final boolean areShares;
    final double milliseconds;

    private Answer(List<Labels.Answer> top, List<Float> values, boolean areShares, double milliseconds) {
      this.top = top;
      this.values = values;
      this.areShares = areShares;
      this.milliseconds = milliseconds;
    }
  }

  private static final int TOP = 3;

  private final Model model;
  private final Preparation preparation;

  /**
   * Takes a network over, which is closed with it.
   *
   * @throws EngineException if it takes no pictures
   */
  Classifier(Model model) throws EngineException {
    this.model = model;
    Preparation found = null;
    try {
      found = Preparation.of(model.file().metadata(), model.inputs().get(0));
    } catch (IllegalArgumentException error) {
      throw new EngineException(error.getMessage(), error);
    } finally {
      if (found == null) {
        model.close();
      }
    }
    preparation = found;
  }

  /** How pictures are prepared. */
  Preparation preparation() {
    return preparation;
  }

  int width() {
    return model.inputs().get(0).shape()[2];
  }

  int height() {
    return model.inputs().get(0).shape()[1];
  }

  /** Runs the network on upright pixels {@code 0xAARRGGBB}. The time is that of the run alone. */
  Answer classify(int[] argb, int width, int height) throws EngineException {
    preparation.prepare(argb, width, height, model.input(0));
    long start = System.nanoTime();
    model.run();
    double milliseconds = 1e-6 * (System.nanoTime() - start);
    TensorInfo output = model.outputs().get(0);
    float[] values = model.values()[0];
    List<Labels.Answer> top;
    try {
      top = Labels.of(model.file().metadata(), model.inputs(), model.outputs())
          .largest(values, output, model.inputs(), TOP);
    } catch (IllegalArgumentException error) {
      throw new EngineException(error.getMessage(), error);
    }
    List<Float> real = new ArrayList<>();
    for (Labels.Answer answer : top) {
      real.add(real(answer.value, output));
    }
    double sum = 0;
    boolean areShares = true;
    for (float value : values) {
      sum += real(value, output);
      areShares &= real(value, output) >= 0;
    }
    return new Answer(top, real, areShares && Math.abs(sum - 1) < 0.01, milliseconds);
  }

  private static float real(float value, TensorInfo output) {
    return output.scale == 0 ? value : (value - output.zeroPoint) * output.scale;
  }

  @Override
  public void close() {
    model.close();
  }
}
