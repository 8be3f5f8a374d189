package com.larqrep.benchmark.core;

import java.io.Closeable;
import java.nio.ByteBuffer;
import java.util.List;

/** A network that can be run: what a benchmark needs of an {@link Engine}, and what a test can replace. */
public interface Model extends Closeable {
  ModelFile file();

  String implementation();

  double loadMs();

  List<TensorInfo> inputs();

  /** Known after the first run. */
  List<TensorInfo> outputs();

  ByteBuffer input(int index);

  void run() throws EngineException;

  /** Nanoseconds that TFLite itself measured of the last run. */
  long nativeNanos();

  float[][] values();

  @Override
  default void close() {}
}
