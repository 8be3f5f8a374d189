package com.larqrep.benchmark.core;

import java.io.Closeable;
import java.nio.ByteBuffer;
import java.util.List;

/**
 * A network that can be run: an {@link Engine}, or what a test has in its place.
 *
 * <p>Fill {@link #input}, call {@link #run}, read {@link #values}. Not for several threads at a time.
 */
public interface Model extends Closeable {
  /** The file that it was made of. */
  ModelFile file();

  /** The instruction set with which the delegate runs. */
  String implementation();

  /** Milliseconds in which delegate and interpreter were made ready. */
  double loadMs();

  /** Descriptions of the inputs. */
  List<TensorInfo> inputs();

  /** Descriptions of the outputs, known after the first run. */
  List<TensorInfo> outputs();

  /** The buffer of an input, in native order, at its beginning. */
  ByteBuffer input(int index);

  /**
   * Runs the network once on what the inputs hold.
   *
   * @throws EngineException if TFLite refuses
   */
  void run() throws EngineException;

  /** Nanoseconds that TFLite itself measured of the last run. */
  long nativeNanos();

  /** All numbers of each output of the last run; integers as they are, booleans as 0 and 1. */
  float[][] values();

  /** Frees what it has of native memory; nothing, if it has none. */
  @Override
  default void close() {}
}
