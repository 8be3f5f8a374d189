package com.larqrep.benchmark;

import android.content.Context;
import com.larqrep.benchmark.core.EngineException;
import com.larqrep.benchmark.core.InputGenerator;
import com.larqrep.benchmark.core.Model;
import com.larqrep.benchmark.core.ModelFile;
import com.larqrep.benchmark.core.Options;
import com.larqrep.benchmark.core.Reference;
import com.larqrep.benchmark.core.TensorInfo;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Semaphore;
import org.robolectric.RuntimeEnvironment;
import org.tensorflow.lite.DataType;

/** A machine without native libraries: its networks give the outputs of their reference, after some milliseconds. */
final class FakeMachine extends Machine {
  /** Networks whose outputs are wrong. */
  final List<String> wrong = new ArrayList<>();
  /** What was opened, in order. */
  final List<Options> opened = Collections.synchronizedList(new ArrayList<>());
  /** Each run takes one; null lets all run. */
  volatile Semaphore permits;
  /** Why nothing can be run; null if it can. */
  volatile String failure;
  /** An error of the machine, such as no programmer expects; null if there is none. */
  volatile Error error;
  /** Whether runs take time; long series need not. */
  volatile boolean sleeps = true;
  /** Whether wrong outputs are those of portable only. */
  volatile boolean wrongInPortable;
  volatile long page = 4096;
  volatile int thermal;
  /** Whether the libraries can be loaded. */
  volatile boolean loads = true;
  /** Last input of a run. */
  volatile ByteBuffer input;
  volatile int closed;

  @Override
  long pageSize() {
    return page;
  }

  @Override
  int thermalStatus(Context context) {
    return thermal;
  }

  @Override
  List<String> implementations() {
    if (!loads) {
      throw new UnsatisfiedLinkError("no larq_rep_delegate in java.library.path");
    }
    return Arrays.asList("avx2", "popcnt", "portable");
  }

  @Override
  String tfliteVersion() {
    if (!loads) {
      throw new UnsatisfiedLinkError("no tensorflowlite_jni in java.library.path");
    }
    return "2.16.1";
  }

  @Override
  Model open(ModelFile file, Options options, String hint) throws EngineException {
    if (error != null) {
      throw error;
    }
    if (file.fault() != null || failure != null) {
      throw new EngineException(file.fault() != null ? file.fault() : failure);
    }
    if (!loads) {
      throw new EngineException("A native library of the app cannot be loaded. " + hint);
    }
    opened.add(options);
    return new FakeModel(file, options);
  }

  private final class FakeModel implements Model {
    private final ModelFile file;
    private final Options options;
    private final TensorInfo input;
    private final float[][][] values; // Of each generated input.
    private final float[] firsts; // Value 0 of each, to tell them apart.
    private final ByteBuffer buffer;
    private int runs;
    private int number;

    FakeModel(ModelFile file, Options options) {
      this.file = file;
      this.options = options;
      boolean digits = file.network().contains("20");
      int side = digits ? 16 : 224;
      input = new TensorInfo("input", DataType.FLOAT32, new int[] {1, side, side, digits ? 1 : 3}, 0, 0);
      buffer = ByteBuffer.allocateDirect(4 * input.count()).order(ByteOrder.nativeOrder());
      String reference = digits ? "ResNet20.reference.json" : "RepReActNetA.reference.json";
      String known = file.network() + ".reference.json";
      Reference found;
      try {
        Context context = RuntimeEnvironment.getApplication();
        boolean bundled = Arrays.asList(context.getAssets().list("")).contains(known);
        String name = bundled ? known : reference;
        found = Reference.parse(name, Files.text(context.getAssets().open(name)));
      } catch (IOException error) {
        throw new AssertionError(error);
      }
      values = new float[found.inputs()][][];
      firsts = new float[values.length];
      for (int i = 0; i < values.length; i++) {
        values[i] = found.outputs(i);
        InputGenerator.fill(buffer, input.type, input.count(), i);
        firsts[i] = buffer.getFloat(0);
      }
      if (wrong.contains(file.network()) || wrongInPortable && "portable".equals(options.implementation)) {
        values[0][0][0] += wrongInPortable ? 1e-6f : 0.5f;
      }
    }

    @Override
    public ModelFile file() {
      return file;
    }

    @Override
    public String implementation() {
      return options.implementation == null ? "avx2" : options.implementation;
    }

    @Override
    public double loadMs() {
      return 12.3;
    }

    @Override
    public List<TensorInfo> inputs() {
      return Collections.singletonList(input);
    }

    @Override
    public List<TensorInfo> outputs() {
      int count = values[0][0].length;
      return Collections.singletonList(new TensorInfo("output", DataType.FLOAT32, new int[] {1, count}, 0, 0));
    }

    @Override
    public ByteBuffer input(int index) {
      buffer.rewind();
      return buffer;
    }

    @Override
    public void run() throws EngineException {
      number = 0;
      for (int i = 0; i < firsts.length; i++) {
        number = firsts[i] == buffer.getFloat(0) ? i : number;
      }
      try {
        if (permits != null && number == 0) {
          permits.acquire();
        }
        boolean portable = "portable".equals(options.implementation);
        if (sleeps) { // Now and then a run is slower.
          Thread.sleep((portable ? 6 : 2) / Math.min(2, options.numThreads), runs++ % 7 == 0 ? 900_000 : 0);
        }
      } catch (InterruptedException error) {
        throw new EngineException("interrupted", error);
      }
      FakeMachine.this.input = buffer.duplicate().order(ByteOrder.nativeOrder());
    }

    @Override
    public long nativeNanos() {
      return 1_900_000;
    }

    @Override
    public float[][] values() {
      return values[number];
    }

    @Override
    public void close() {
      closed++;
    }
  }
}
