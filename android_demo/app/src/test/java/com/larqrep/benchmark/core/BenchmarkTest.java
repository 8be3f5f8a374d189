package com.larqrep.benchmark.core;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertSame;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.Test;
import org.tensorflow.lite.DataType;

/** The order of runs, progress and cancelling, with a network that needs no native library. */
public class BenchmarkTest {
  private static final Benchmark.Listener NOBODY = (done, total) -> { };

  private static TensorInfo tensor(String name, DataType type, int... shape) {
    return new TensorInfo(name, type, shape, 0, 0);
  }

  private static FakeModel model() {
    return new FakeModel(new ModelFile("Net", "net.tflite", ByteBuffer.allocate(8)), "neon",
        Arrays.asList(tensor("x", DataType.FLOAT32, 1, 2, 2, 1), tensor("z", DataType.UINT8, 3)),
        Collections.singletonList(tensor("y", DataType.FLOAT32, 1, 3)), new float[][] {{1, 3, 2}});
  }

  private static Options options(String arguments) {
    return Options.parse(arguments);
  }

  @Test
  public void tellsTheProgressAfterEachRun() throws Exception {
    FakeModel model = model();
    Benchmark.Listener listener = (done, total) -> model.events.add(done + "/" + total);
    Benchmark.run(model, options("--warmup_runs=1 --num_runs=2"), null, listener, new AtomicBoolean());
    assertEquals(Arrays.asList("run", "1/4", "run", "2/4", "run", "3/4", "run", "4/4"), model.events);
  }

  @Test
  public void runsOnceMoreThanWarmUpAndTimedRuns() throws Exception {
    FakeModel model = model();
    BenchmarkResult result =
        Benchmark.run(model, options("--warmup_runs=0 --num_runs=1"), null, NOBODY, new AtomicBoolean());
    assertEquals(2, model.events.size());
    assertEquals(1, result.statistics().runs().length);
    assertEquals(1.0, result.nativeMs(), 0);
    assertTrue(result.firstMs() >= 0);
    assertEquals(1, result.top().get(0).index);
  }

  @Test
  public void cancelsAfterTheRunThatIsGoingOn() {
    FakeModel model = model();
    AtomicBoolean cancel = new AtomicBoolean();
    Benchmark.Listener listener = (done, total) -> cancel.set(done == 3);
    assertThrows(CancelledException.class,
        () -> Benchmark.run(model, options("--num_runs=50"), null, listener, cancel));
    assertEquals(3, model.events.size());
  }

  @Test
  public void doesNotRunAtAllIfItIsCancelledBefore() {
    FakeModel model = model();
    assertThrows(CancelledException.class,
        () -> Benchmark.run(model, options(""), null, NOBODY, new AtomicBoolean(true)));
    assertTrue(model.events.isEmpty());
  }

  @Test
  public void fillsEachInputFromItsBeginning() throws Exception {
    FakeModel model = model();
    Benchmark.run(model, options("--num_runs=1"), null, NOBODY, new AtomicBoolean());
    ByteBuffer x = ByteBuffer.allocate(32).order(ByteOrder.nativeOrder());
    InputGenerator.fill(x, DataType.FLOAT32, 4, 0);
    assertArrayEquals(x.array(), model.input(0).array());
    assertEquals(0, model.input(1).get(0)); // The hash of 0 is 0.
    assertEquals(-2, x.getFloat(0), 0);
    assertTrue(x.getFloat(4) != x.getFloat(8));
  }

  @Test
  public void runsOnceOnEachFurtherInputOfTheReference() throws Exception {
    FakeModel model = model();
    String outputs = "\"outputs\": [{\"values\": [1, 3, 2]}]";
    Reference reference = Reference.parse("r.json", "{\"schema\": 1, \"inputs\": \"lowbias32\", " + outputs
        + ", \"further\": [[[1, 3, 2]], [[1, 3, 4]]]}");
    Benchmark.Listener listener = (done, total) -> model.events.add(done + "/" + total);
    BenchmarkResult result =
        Benchmark.run(model, options("--warmup_runs=0 --num_runs=1"), reference, listener, new AtomicBoolean());
    assertEquals(Arrays.asList("run", "1/2", "run", "2/2", "run", "run"), model.events);
    ByteBuffer x = ByteBuffer.allocate(32).order(ByteOrder.nativeOrder());
    InputGenerator.fill(x, DataType.FLOAT32, 4, 2);
    assertArrayEquals(x.array(), model.input(0).array());
    // The last input has another largest number.
    assertEquals(Agreement.DIFFERS, result.agreement().verdict());
    assertEquals(3, result.agreement().inputs());
    assertEquals(1, result.statistics().runs().length);
  }

  @Test
  public void hasNoPartInTheErrorsOfANetwork() {
    FakeModel model = new FakeModel(model().file(), "neon", Collections.<TensorInfo>emptyList(),
        Collections.<TensorInfo>emptyList(), new float[0][]) {
      @Override
      public void run() throws EngineException {
        throw new EngineException("no memory");
      }
    };
    EngineException error = assertThrows(EngineException.class,
        () -> Benchmark.run(model, options(""), null, NOBODY, new AtomicBoolean()));
    assertEquals("no memory", error.getMessage());
  }

  @Test
  public void comparesTheBestWithPortable() {
    List<String> rows = new ArrayList<>();
    for (Options row : Comparison.plan(options("--num_runs=3 --no_fuse"), Arrays.asList("avx2", "popcnt", "portable"),
        6)) {
      assertFalse(row.fuse);
      assertEquals(3, row.numRuns);
      rows.add(row.implementation + row.numThreads);
    }
    assertEquals(Arrays.asList("avx21", "avx22", "avx24", "portable1", "portable2", "portable4"), rows);
    assertEquals(1, Comparison.plan(options(""), Collections.singletonList("portable"), 1).size());
  }

  @Test
  public void countsThreadsInPowersOfTwo() {
    assertEquals(Collections.singletonList(1), Comparison.threads(0));
    assertEquals(Arrays.asList(1, 2, 4, 8), Comparison.threads(8));
    assertEquals(Arrays.asList(1, 2, 4, 8, 16, 32, 64), Comparison.threads(500));
  }

  @Test
  public void addsResultsInOrder() throws Exception {
    Comparison comparison = new Comparison();
    BenchmarkResult result =
        Benchmark.run(model(), options("--num_runs=1"), null, NOBODY, new AtomicBoolean());
    comparison.add(result, null);
    assertSame(result, comparison.results().get(0));
    Report report = new Report(null, "1", null);
    assertTrue(comparison.toJson(report).getJSONArray("compare").getJSONObject(0).isNull("thermal"));
    assertTrue(comparison.toJson(report).isNull("tflite_version"));
  }
}
