package com.larqrep.benchmark.core;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;
import org.tensorflow.lite.DataType;

/**
 * Lets tests/test_core.py call these classes: answers each line of JSON on standard input with one on standard output.
 *
 * <p>Numbers pass as base64 of their bytes in native order. An error that is meant for a user is answered as "error",
 * any other as "crash".
 */
public final class CoreMain {
  private CoreMain() {}

  public static void main(String[] arguments) throws IOException, JSONException {
    PrintStream out = new PrintStream(System.out, true, "UTF-8");
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      JSONObject answer;
      try {
        answer = answer(new JSONObject(line));
      } catch (IllegalArgumentException | EngineException error) {
        answer = new JSONObject().put("error", error.getMessage());
      } catch (Exception | Error error) {
        answer = new JSONObject().put("crash", error + " at " + Arrays.toString(error.getStackTrace()));
      }
      out.println(answer);
    }
  }

  private static JSONObject answer(JSONObject request) throws Exception {
    switch (request.getString("do")) {
      case "statistics":
        return statistics(doubles(request.getJSONArray("ms")));
      case "generate":
        ByteBuffer generated = buffer(8 * request.getInt("count"));
        InputGenerator.fill(generated, DataType.valueOf(request.getString("type")), request.getInt("count"),
            request.optInt("number"));
        return new JSONObject().put("bytes", encode(generated));
      case "options":
        return options(Options.parse(request.getString("arguments")));
      case "file":
        return file(model(request));
      case "prepare":
        return prepare(request);
      case "agree":
        return Agreement.of(outputs(request, "outputs"), outputs(request, "reference")).toJson();
      case "agree with all":
        List<Agreement> each = new ArrayList<>();
        for (int i = 0; request.has("outputs" + i); i++) {
          each.add(Agreement.of(outputs(request, "outputs" + i), outputs(request, "reference" + i)));
        }
        return Agreement.ofAll(each).toJson();
      case "benchmark":
        return benchmark(request);
      case "reference":
        Reference parsed = Reference.parse("r.json", request.getString("json"));
        JSONArray runs = new JSONArray();
        for (int i = 0; i < parsed.inputs(); i++) {
          runs.put(new JSONArray(parsed.outputs(i)));
        }
        return new JSONObject().put("outputs", runs);
      case "catalog":
        Catalog catalog = Catalog.parse(request.getString("json"));
        Network found = catalog.find(request.optString("name", null));
        if (found == null) {
          throw catalog.unknown(request.getString("name"));
        }
        return new JSONObject().put("file", found.file).put("count", catalog.networks().size());
      case "lines":
        return new JSONObject()
            .put("lines", new JSONArray(LogLines.split(request.getString("name"), request.getString("text"))));
      default:
        throw new AssertionError(request);
    }
  }

  private static JSONObject statistics(double[] milliseconds) throws JSONException {
    Statistics statistics = new Statistics(milliseconds);
    return new JSONObject().put("min", statistics.min).put("p10", statistics.p10).put("median", statistics.median)
        .put("p90", statistics.p90);
  }

  private static JSONObject options(Options options) throws JSONException {
    return new JSONObject().put("model", options.model).put("num_threads", options.numThreads)
        .put("warmup_runs", options.warmupRuns).put("num_runs", options.numRuns).put("top", options.top)
        .put("implementation", options.implementation).put("no_fuse", !options.fuse).put("output", options.output)
        .put("compare", options.compare);
  }

  private static ModelFile model(JSONObject request) throws JSONException, IOException {
    byte[] content = request.has("path") ? Files.readAllBytes(Paths.get(request.getString("path")))
        : Base64.getDecoder().decode(request.optString("content"));
    return new ModelFile(request.optString("network", "network"), request.optString("file", "n.tflite"),
        ByteBuffer.wrap(content));
  }

  private static JSONObject file(ModelFile file) throws JSONException {
    return new JSONObject().put("fault", file.fault()).put("metadata", file.metadata()).put("bytes", file.bytes())
        .put("custom", new JSONArray(file.customOperators())).put("lce_operators", file.lceOperators());
  }

  private static JSONObject prepare(JSONObject request) throws JSONException {
    TensorInfo input = tensor(request.getJSONObject("input"));
    Preparation preparation = Preparation.of(request.getJSONObject("metadata"), input);
    JSONObject answer = new JSONObject().put("text", preparation.text()).put("assumed", preparation.assumed());
    if (request.has("pixels")) {
      ByteBuffer bytes = ByteBuffer.wrap(Base64.getDecoder().decode(request.getString("pixels")))
          .order(ByteOrder.nativeOrder());
      int[] pixels = new int[bytes.capacity() / 4];
      bytes.asIntBuffer().get(pixels);
      ByteBuffer out = buffer(input.count() * input.type.byteSize());
      preparation.prepare(pixels, request.getInt("width"), request.getInt("height"), out);
      answer.put("bytes", encode(out));
    }
    return answer;
  }

  /** Runs a network with each of "implementations": a fake one, or if the request has no outputs, the file itself. */
  private static JSONObject benchmark(JSONObject request) throws Exception {
    Report report = new Report(new JSONObject().put("model", "a phone, \"new\""), "0.2.0", "2.16.1");
    JSONObject thermal = new JSONObject().put("before", 1).put("after", 2);
    float[][] reference = outputs(request, "reference");
    String text = reference == null ? request.optString("reference_json", null) : referenceJson(reference);
    Reference parsed = text == null ? null : Reference.parse("r.json", text);
    JSONArray implementations = request.getJSONArray("implementations");
    Comparison comparison = new Comparison();
    BenchmarkResult result = null;
    for (int i = 0; i < implementations.length(); i++) {
      Options options = new Options.Builder(Options.parse(request.getString("arguments")))
          .setImplementation(implementations.isNull(i) ? null : implementations.getString(i)).build();
      result = request.has("outputs0") ? benchmark(fake(request, i), options, parsed)
          : benchmark(model(request), options, parsed);
      comparison.add(result, thermal);
    }
    return implementations.length() == 1
        ? new JSONObject().put("json", result.toJson(report, thermal)).put("csv", result.toCsv(report))
        : new JSONObject().put("json", comparison.toJson(report)).put("csv", comparison.toCsv(report));
  }

  private static BenchmarkResult benchmark(ModelFile file, Options options, Reference reference) throws Exception {
    try (Engine engine = new Engine(file, options, "")) {
      return benchmark(engine, options, reference);
    }
  }

  private static BenchmarkResult benchmark(Model model, Options options, Reference reference) throws Exception {
    return Benchmark.run(model, options, reference, (done, total) -> { }, new AtomicBoolean());
  }

  private static FakeModel fake(JSONObject request, int number) throws JSONException, IOException {
    return new FakeModel(model(request), request.getJSONArray("implementations").getString(number),
        tensors(request, "inputs"), tensors(request, "output_tensors"), outputs(request, "outputs" + number));
  }

  private static String referenceJson(float[][] outputs) throws JSONException {
    JSONArray array = new JSONArray();
    for (float[] output : outputs) {
      array.put(new JSONObject().put("values", new JSONArray(output)));
    }
    return new JSONObject().put("schema", 1).put("inputs", "lowbias32").put("outputs", array).toString();
  }

  private static List<TensorInfo> tensors(JSONObject request, String name) throws JSONException {
    List<TensorInfo> tensors = new ArrayList<>();
    for (int i = 0; i < request.getJSONArray(name).length(); i++) {
      tensors.add(tensor(request.getJSONArray(name).getJSONObject(i)));
    }
    return Collections.unmodifiableList(tensors);
  }

  private static TensorInfo tensor(JSONObject object) throws JSONException {
    double[] sides = doubles(object.getJSONArray("shape"));
    int[] shape = new int[sides.length];
    for (int i = 0; i < shape.length; i++) {
      shape[i] = (int) sides[i];
    }
    return new TensorInfo(object.optString("name"), DataType.valueOf(object.getString("type")), shape,
        (float) object.optDouble("scale", 0), object.optInt("zero_point"));
  }

  private static double[] doubles(JSONArray array) throws JSONException {
    double[] values = new double[array.length()];
    for (int i = 0; i < values.length; i++) {
      values[i] = array.getDouble(i);
    }
    return values;
  }

  /** A list of base64 of float32; null if there is none. */
  private static float[][] outputs(JSONObject request, String name) throws JSONException {
    JSONArray array = request.optJSONArray(name);
    if (array == null) {
      return null;
    }
    float[][] outputs = new float[array.length()][];
    for (int i = 0; i < outputs.length; i++) {
      ByteBuffer bytes = ByteBuffer.wrap(Base64.getDecoder().decode(array.getString(i)))
          .order(ByteOrder.nativeOrder());
      outputs[i] = new float[bytes.capacity() / 4];
      bytes.asFloatBuffer().get(outputs[i]);
    }
    return outputs;
  }

  private static ByteBuffer buffer(int bytes) {
    return ByteBuffer.allocate(bytes).order(ByteOrder.nativeOrder());
  }

  private static String encode(ByteBuffer buffer) {
    return Base64.getEncoder().encodeToString(buffer.array());
  }
}
