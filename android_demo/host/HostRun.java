import com.larqrep.runtime.LarqRepDelegate;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.tensorflow.lite.Interpreter;
import org.tensorflow.lite.TensorFlowLite;

/**
 * Uses the AAR as an app does, in a desktop's JVM with the shim: {@code HostRun FILE.json CYCLES MODEL...}.
 *
 * <p>Each MODEL.tflite has its input tensor's bytes in MODEL.tflite.input. The JSON holds what happened; tests judge it.
 */
public final class HostRun {
  private static final StringBuilder JSON = new StringBuilder("{");

  private HostRun() {}

  public static void main(String[] arguments) throws IOException {
    put("growth_kib", Long.toString(growth(Integer.parseInt(arguments[1]))));
    put("tflite", quote(TensorFlowLite.runtimeVersion()));
    List<String> implementations = LarqRepDelegate.implementations();
    put("implementations", quoteAll(implementations));
    for (String path : Arrays.asList(arguments).subList(2, arguments.length)) {
      ByteBuffer model = read(path);
      ByteBuffer input = read(path + ".input");
      String name = new File(path).getName();
      put(name + " without delegate", quote(loadAlone(model)));
      try (LarqRepDelegate delegate = new LarqRepDelegate()) {
        put(name + " run by default", run(model, input, delegate, 2));
      }
      for (String implementation : Arrays.asList(implementations.get(0), "portable")) {
        for (int threads : new int[] {1, 2, 4}) {
          LarqRepDelegate.Options options =
              new LarqRepDelegate.Options().setImplementation(implementation).setNumThreads(threads);
          try (LarqRepDelegate delegate = new LarqRepDelegate(options)) {
            // Two interpreters, one after the other, with one delegate.
            String key = name + " run by " + implementation + " on " + threads;
            put(key, run(model, input, delegate, threads));
            put(key + " again", run(model, input, delegate, threads));
          }
        }
      }
    }
    put("refused", quoteAll(refusals()));
    Files.write(Paths.get(arguments[0]), JSON.append("}").toString().getBytes("UTF-8"));
  }

  /** The three lines that the README shows, and the outputs as a JSON list of numbers. */
  private static String run(ByteBuffer model, ByteBuffer input, LarqRepDelegate delegate, int threads) {
    Interpreter.Options options = new Interpreter.Options().setNumThreads(threads).addDelegate(delegate);
    try (Interpreter interpreter = new Interpreter(model, options)) {
      Map<Integer, Object> outputs = new HashMap<>();
      List<ByteBuffer> buffers = new ArrayList<>();
      for (int i = 0; i < interpreter.getOutputTensorCount(); i++) {
        int bytes = interpreter.getOutputTensor(i).numBytes();
        buffers.add(ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder()));
        outputs.put(i, buffers.get(i));
      }
      input.rewind();
      interpreter.runForMultipleInputsOutputs(new Object[] {input}, outputs);
      List<String> values = new ArrayList<>();
      for (ByteBuffer buffer : buffers) {
        buffer.rewind();
        while (buffer.hasRemaining()) values.add(Float.toString(buffer.getFloat()));
      }
      return values.toString();
    }
  }

  /** The error of loading a model without the delegate, or "none". */
  private static String loadAlone(ByteBuffer model) {
    try {
      new Interpreter(model, new Interpreter.Options()).close();
      return "none";
    } catch (IllegalArgumentException | IllegalStateException error) {
      return error.getMessage();
    }
  }

  /** The messages of delegates that cannot be. */
  private static List<String> refusals() {
    List<LarqRepDelegate.Options> wrong = new ArrayList<>();
    wrong.add(new LarqRepDelegate.Options().setNumThreads(65));
    wrong.add(new LarqRepDelegate.Options().setNumThreads(-1));
    wrong.add(new LarqRepDelegate.Options().setImplementation("sse"));
    wrong.add(new LarqRepDelegate.Options().setImplementation("\u00fc"));
    wrong.add(new LarqRepDelegate.Options().setImplementation(null));
    List<String> messages = new ArrayList<>();
    for (LarqRepDelegate.Options options : wrong) {
      try {
        new LarqRepDelegate(options).close();
        messages.add("taken");
      } catch (IllegalArgumentException error) {
        messages.add(error.getMessage());
      }
    }
    LarqRepDelegate closed = new LarqRepDelegate();
    closed.close();
    closed.close();
    try {
      messages.add("open: " + closed.getNativeHandle());
    } catch (IllegalStateException error) {
      messages.add(error.getMessage());
    }
    return messages;
  }

  /** KiB that the process grew by while it created and closed delegates, after as many that warm it up. */
  private static long growth(int cycles) throws IOException {
    long before = 0;
    for (int i = -cycles; i < cycles; i++) {
      if (i == 0 || i == -cycles) before = residentKib();
      new LarqRepDelegate(new LarqRepDelegate.Options().setNumThreads(2)).close();
    }
    return residentKib() - before;
  }

  private static long residentKib() throws IOException {
    System.gc();
    for (String line : Files.readAllLines(Paths.get("/proc/self/status"))) {
      if (line.startsWith("VmRSS:")) return Long.parseLong(line.replaceAll("\\D", ""));
    }
    throw new IOException("/proc/self/status: no VmRSS");
  }

  private static ByteBuffer read(String path) throws IOException {
    byte[] content = Files.readAllBytes(Paths.get(path));
    ByteBuffer buffer = ByteBuffer.allocateDirect(content.length).order(ByteOrder.nativeOrder());
    buffer.put(content);
    buffer.rewind();
    return buffer;
  }

  private static void put(String key, String json) {
    if (JSON.length() > 1) JSON.append(",\n");
    JSON.append(quote(key)).append(": ").append(json);
  }

  private static String quoteAll(List<String> texts) {
    List<String> quoted = new ArrayList<>();
    for (String text : texts) quoted.add(quote(text));
    return quoted.toString();
  }

  private static String quote(String text) {
    StringBuilder quoted = new StringBuilder("\"");
    for (char c : text.toCharArray()) {
      if (c < ' ' || c == '"' || c == '\\') quoted.append(String.format("\\u%04x", (int) c));
      else quoted.append(c);
    }
    return quoted.append('"').toString();
  }
}
