package com.larqrep.benchmark.core;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.LinkedHashSet;
import java.util.List;
import org.json.JSONException;
import org.json.JSONObject;
import org.json.JSONTokener;

/**
 * What a .tflite file says of itself, read from its flatbuffer without TFLite.
 *
 * <p>All tables, vectors and indices of its graph are looked up, so that a file that is cut off or damaged is refused
 * in plain words, before native code sees it: it has a {@link #fault}.
 */
public final class ModelFile {
  private static final String[] TYPES = {"float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16",
      "complex64", "int8", "float64", "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4",
      "bfloat16"};
  private static final List<String> INPUT_TYPES = Arrays.asList("float32", "int8", "uint8", "int32", "int64", "bool");
  private static final List<String> OUTPUT_TYPES =
      Arrays.asList("float32", "int8", "uint8", "int16", "int32", "int64", "bool");
  private static final int CUSTOM = 32; // BuiltinOperator_CUSTOM
  /**
   * Operators that may leave out an input but the first, such as a bias: convolutions, fully connected and recurrent
   * ones. Any other reads what is left out, and the process ends.
   */
  private static final List<Integer> WITH_OPTIONAL_INPUTS = Arrays.asList(3, 4, 9, 16, 27, 44, 46, 52, 67, 132, 141,
      CUSTOM);

  private final String network;
  private final String file;
  private final ByteBuffer content;
  private final Flatbuffer buffer;
  private final List<Integer> builtins = new ArrayList<>();
  private final List<String> codes = new ArrayList<>();
  private final Collection<String> customOperators = new LinkedHashSet<>();
  private int lceOperators;
  private String fault;

  /**
   * Reads a file; a damaged one has a {@link #fault}.
   *
   * @param network its name in reports
   * @param file its name or path in reports and messages
   * @param content its bytes, from the buffer's position to its limit
   */
  public ModelFile(String network, String file, ByteBuffer content) {
    this.network = network;
    this.file = file;
    this.content = content.slice().order(ByteOrder.nativeOrder());
    buffer = new Flatbuffer(this.content);
    if (!isFlatbuffer(this.content)) {
      fault = file + " is not a .tflite file: expected TFL3 at byte 4. Choose a file that lce convert or the TFLite "
          + "converter has written.";
      return;
    }
    try {
      read();
    } catch (IndexOutOfBoundsException | ArithmeticException error) {
      fault = file + " is damaged or cut off: of its " + this.content.limit() + " bytes some point to places outside. "
          + "Copy or convert it again.";
    }
  }

  /** Whether the bytes from the buffer's position on begin as those of a .tflite file do. */
  public static boolean isFlatbuffer(ByteBuffer content) {
    byte[] start = new byte[8];
    if (content.remaining() < start.length) {
      return false;
    }
    content.duplicate().get(start);
    return start[4] == 'T' && start[5] == 'F' && start[6] == 'L' && start[7] == '3';
  }

  /** Its name in reports. */
  public String network() {
    return network;
  }

  /** Its file's name or path in reports. */
  public String file() {
    return file;
  }

  /** Its size. */
  public int bytes() {
    return content.limit();
  }

  /** Why it cannot be run, in a sentence; null if nothing speaks against it. */
  public String fault() {
    return fault;
  }

  /** Names of the custom operators in its graph. */
  public Collection<String> customOperators() {
    return Collections.unmodifiableCollection(customOperators);
  }

  /** How many operators of Larq Compute Engine its graph has. */
  public int lceOperators() {
    return lceOperators;
  }

  /** Its bytes as TFLite takes them: direct and in native order. */
  ByteBuffer content() {
    if (content.isDirect()) {
      return content;
    }
    ByteBuffer direct = ByteBuffer.allocateDirect(content.limit()).order(ByteOrder.nativeOrder());
    direct.put(content.duplicate());
    direct.rewind();
    return direct;
  }

  /** The JSON object in the metadata buffer named larq_rep; empty for a file without it, or if it is damaged. */
  public JSONObject metadata() {
    try {
      int model = buffer.target(0);
      for (int entry : buffer.tables(model, 6)) {
        if (!"larq_rep".equals(buffer.string(entry, 0))) {
          continue;
        }
        int[] buffers = buffer.tables(model, 4);
        JSONTokener tokens = new JSONTokener(buffer.string(buffers[buffer.integer(entry, 1, -1)], 0));
        Object value = tokens.nextValue();
        return value instanceof JSONObject && tokens.nextClean() == 0 ? (JSONObject) value : new JSONObject();
      }
    } catch (IndexOutOfBoundsException | ArithmeticException | CharacterCodingException | JSONException
        | StackOverflowError error) {
      return new JSONObject(); // Damaged; running the file reports that.
    }
    return new JSONObject();
  }

  private void read() {
    int model = buffer.target(0);
    for (int code : buffer.tables(model, 1)) {
      int builtin = Math.max(buffer.signedByte(code, 0, 0), buffer.integer(code, 3, 0));
      String name = buffer.letters(code, 1);
      builtins.add(builtin);
      codes.add(builtin == CUSTOM ? name : null);
    }
    int[] buffers = buffer.tables(model, 4);
    for (int one : buffers) {
      buffer.bytes(one, 0);
      buffer.within(buffer.whole(one, 1), buffer.whole(one, 2)); // Large files have their data behind the flatbuffer.
    }
    for (int entry : buffer.tables(model, 6)) {
      buffer.letters(entry, 0);
    }
    int[] graphs = buffer.tables(model, 2);
    if (graphs.length == 0) {
      throw new IndexOutOfBoundsException("no graph");
    }
    for (int graph : graphs) {
      read(graph, buffers.length, graph == graphs[0]);
    }
  }

  private void read(int graph, int buffers, boolean first) {
    int[] tensors = buffer.tables(graph, 0);
    for (int tensor : tensors) {
      buffer.integers(tensor, 0);
      buffer.integers(tensor, 7);
      buffer.letters(tensor, 3);
      Flatbuffer.index(buffer.integer(tensor, 2, 0), buffers);
      int quantization = buffer.table(tensor, 4);
      for (int field = 0; quantization >= 0 && field < 4; field++) {
        buffer.vector(quantization, field, field == 3 ? 8 : 4); // min, max and scale are float32, zero points int64.
      }
    }
    checkPorts(tensors, buffer.integers(graph, 1), first, "input", INPUT_TYPES);
    checkPorts(tensors, buffer.integers(graph, 2), first, "output", OUTPUT_TYPES);
    for (int operator : buffer.tables(graph, 3)) {
      int number = Flatbuffer.index(buffer.integer(operator, 0, 0), codes.size());
      int[] inputs = buffer.integers(operator, 1);
      for (int i = 0; i < inputs.length; i++) {
        boolean leftOut = inputs[i] == -1 && i > 0 && WITH_OPTIONAL_INPUTS.contains(builtins.get(number));
        Flatbuffer.index(leftOut ? 0 : inputs[i], tensors.length);
      }
      for (int tensor : buffer.integers(operator, 2)) {
        Flatbuffer.index(tensor, tensors.length);
      }
      String code = codes.get(number);
      buffer.table(operator, 4);
      buffer.bytes(operator, 5);
      if (code != null) {
        customOperators.add(code);
        lceOperators += code.startsWith("Lce") ? 1 : 0;
      }
    }
  }

  /** Checks the inputs or outputs of a graph; those of the first are the app's, and their types have to be known. */
  private void checkPorts(int[] tensors, int[] ports, boolean first, String kind, List<String> types) {
    for (int port : ports) {
      int tensor = tensors[Flatbuffer.index(port, tensors.length)];
      int number = buffer.signedByte(tensor, 1, 0);
      String type = number >= 0 && number < TYPES.length ? TYPES[number] : "type " + number;
      if (first && fault == null && !types.contains(type)) {
        fault = "The " + kind + " " + buffer.letters(tensor, 3) + " of " + file + " is " + type + ", expected "
            + TextFormat.list(types, " or ") + ". Convert the file with an " + kind + " of float32.";
      }
    }
  }
}
