package com.larqrep.benchmark.core;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;

/** A network that needs no native library: its outputs are given, and it tells what was done with it. */
class FakeModel implements Model {
  /** What happened: "run" for each run. */
  final List<String> events = new ArrayList<>();

  private final ModelFile file;
  private final String implementation;
  private final List<TensorInfo> inputs;
  private final List<TensorInfo> outputs;
  private final float[][] values;
  private final List<ByteBuffer> buffers = new ArrayList<>();

  FakeModel(ModelFile file, String implementation, List<TensorInfo> inputs, List<TensorInfo> outputs,
      float[][] values) {
    this.file = file;
    this.implementation = implementation;
    this.inputs = inputs;
    this.outputs = outputs;
    this.values = values;
    for (TensorInfo input : inputs) {
      buffers.add(ByteBuffer.allocate(8 * input.count()).order(ByteOrder.nativeOrder()));
    }
  }

  @Override
  public ModelFile file() {
    return file;
  }

  @Override
  public String implementation() {
    return implementation;
  }

  @Override
  public double loadMs() {
    return 12.5;
  }

  @Override
  public List<TensorInfo> inputs() {
    return inputs;
  }

  @Override
  public List<TensorInfo> outputs() {
    return outputs;
  }

  @Override
  public ByteBuffer input(int index) {
    return buffers.get(index);
  }

  @Override
  public void run() throws EngineException {
    events.add("run");
  }

  /** Half a millisecond more each run. */
  @Override
  public long nativeNanos() {
    return 500_000L * events.size();
  }

  @Override
  public float[][] values() {
    return values;
  }
}
