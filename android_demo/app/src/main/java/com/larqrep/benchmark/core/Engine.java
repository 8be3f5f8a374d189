package com.larqrep.benchmark.core;

import com.larqrep.runtime.LarqRepDelegate;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.tensorflow.lite.Interpreter;
import org.tensorflow.lite.Tensor;

/**
 * A network in TFLite's interpreter with the delegate. It has to be closed.
 */
public final class Engine implements Model {
  private static final Pattern UNRESOLVED = Pattern.compile("unresolved custom op: (\\w+)");

  private final ModelFile file;
  private final String implementation;
  private final LarqRepDelegate delegate;
  private final Interpreter interpreter;
  private final double loadMs;
  private final List<TensorInfo> inputs = new ArrayList<>();
  private final Object[] inputBuffers;
  private final Map<Integer, Object> outputBuffers = new HashMap<>();
  private List<TensorInfo> outputs;

  /**
   * Loads a file.
   *
   * @param options threads, implementation and fuse
   * @param hint what to add if a library cannot be loaded, for instance of the size of memory pages; may be empty
   * @throws EngineException if the file is damaged or cannot be run, an option is wrong or a library cannot be loaded
   */
  public Engine(ModelFile file, Options options, String hint) throws EngineException {
    if (file.fault() != null) {
      throw new EngineException(file.fault());
    }
    this.file = file;
    long start = System.nanoTime();
    LarqRepDelegate createdDelegate = null;
    Interpreter createdInterpreter = null;
    boolean loaded = false;
    try {
      createdDelegate = new LarqRepDelegate(delegateOptions(options));
      createdInterpreter = createInterpreter(file, options, createdDelegate);
      loadMs = (System.nanoTime() - start) / 1e6;
      implementation = options.implementation == null ? LarqRepDelegate.implementations().get(0)
          : options.implementation;
      inputBuffers = new Object[createdInterpreter.getInputTensorCount()];
      for (int i = 0; i < inputBuffers.length; i++) {
        Tensor tensor = createdInterpreter.getInputTensor(i);
        inputs.add(TensorInfo.of(tensor));
        inputBuffers[i] = ByteBuffer.allocateDirect(tensor.numBytes()).order(ByteOrder.nativeOrder());
      }
      loaded = true;
    } catch (LinkageError error) {
      throw new EngineException(
          ("A native library of the app cannot be loaded: " + error.getMessage() + ". " + hint).trim(), error);
    } catch (OutOfMemoryError error) {
      throw new EngineException("The memory does not suffice for " + file.file() + ".", error);
    } catch (RuntimeException error) { // TFLite throws several classes.
      throw explained(file, createdDelegate == null, error);
    } finally {
      if (!loaded) {
        close(createdInterpreter, createdDelegate);
      }
    }
    delegate = createdDelegate;
    interpreter = createdInterpreter;
  }

  private static LarqRepDelegate.Options delegateOptions(Options options) {
    LarqRepDelegate.Options result = new LarqRepDelegate.Options().setFuse(options.fuse);
    return options.implementation == null ? result : result.setImplementation(options.implementation);
  }

  private static Interpreter createInterpreter(ModelFile file, Options options, LarqRepDelegate delegate) {
    Interpreter.Options settings = new Interpreter.Options();
    settings.setNumThreads(options.numThreads); // The delegate takes them from here.
    settings.addDelegate(delegate);
    Interpreter interpreter = new Interpreter(file.content(), settings);
    try {
      interpreter.allocateTensors();
      return interpreter;
    } catch (RuntimeException error) {
      interpreter.close();
      throw error;
    }
  }

  private static EngineException explained(ModelFile file, boolean byDelegate, RuntimeException error) {
    String message = String.valueOf(error.getMessage());
    if (byDelegate) {
      return new EngineException("The delegate refuses the options: " + message, error);
    }
    Matcher unresolved = UNRESOLVED.matcher(message);
    if (unresolved.find()) {
      return new EngineException(file.file() + " needs the operator " + unresolved.group(1)
          + ", which neither TFLite nor the delegate runs. Convert it again with this version's converter.", error);
    }
    return new EngineException("TFLite does not run " + file.file() + ": " + message, error);
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
    return loadMs;
  }

  @Override
  public List<TensorInfo> inputs() {
    return Collections.unmodifiableList(inputs);
  }

  @Override
  public List<TensorInfo> outputs() {
    if (outputs == null) {
      throw new IllegalStateException("The outputs are known after the first run.");
    }
    return Collections.unmodifiableList(outputs);
  }

  @Override
  public ByteBuffer input(int index) {
    ByteBuffer buffer = (ByteBuffer) inputBuffers[index];
    buffer.rewind();
    return buffer;
  }

  @Override
  public void run() throws EngineException {
    try {
      for (int i = 0; i < outputBuffers.size(); i++) {
        ((ByteBuffer) outputBuffers.get(i)).rewind();
      }
      interpreter.runForMultipleInputsOutputs(inputBuffers, outputBuffers);
      if (outputs == null) {
        readOutputs();
      }
    } catch (OutOfMemoryError error) {
      throw new EngineException("The memory does not suffice for " + file.file() + ".", error);
    } catch (RuntimeException error) {
      throw new EngineException("TFLite does not run " + file.file() + ": " + error.getMessage(), error);
    }
  }

  /** Makes the buffers of the outputs, whose shapes may not be known before a run. */
  private void readOutputs() {
    List<TensorInfo> found = new ArrayList<>();
    for (int i = 0; i < interpreter.getOutputTensorCount(); i++) {
      Tensor tensor = interpreter.getOutputTensor(i);
      found.add(TensorInfo.of(tensor));
      ByteBuffer buffer = ByteBuffer.allocateDirect(tensor.numBytes()).order(ByteOrder.nativeOrder());
      outputBuffers.put(i, buffer.put(tensor.asReadOnlyBuffer()));
    }
    outputs = found;
  }

  @Override
  public long nativeNanos() {
    Long nanoseconds = interpreter.getLastNativeInferenceDurationNanoseconds();
    return nanoseconds == null ? 0 : nanoseconds;
  }

  @Override
  public float[][] values() {
    float[][] values = new float[outputs().size()][];
    for (int i = 0; i < values.length; i++) {
      values[i] = outputs.get(i).read((ByteBuffer) outputBuffers.get(i));
    }
    return values;
  }

  @Override
  public void close() {
    close(interpreter, delegate);
  }

  /** An interpreter does not own its delegate and needs it until it is closed itself. */
  private static void close(Interpreter interpreter, LarqRepDelegate delegate) {
    if (interpreter != null) {
      interpreter.close();
    }
    if (delegate != null) {
      delegate.close();
    }
  }
}
