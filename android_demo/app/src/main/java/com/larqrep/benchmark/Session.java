package com.larqrep.benchmark;

import android.content.Context;
import android.net.Uri;
import android.os.Bundle;
import android.os.Handler;
import android.os.Looper;
import android.os.PowerManager;
import android.util.Log;
import com.larqrep.benchmark.core.Benchmark;
import com.larqrep.benchmark.core.BenchmarkResult;
import com.larqrep.benchmark.core.CancelledException;
import com.larqrep.benchmark.core.Catalog;
import com.larqrep.benchmark.core.Comparison;
import com.larqrep.benchmark.core.EngineException;
import com.larqrep.benchmark.core.LogLines;
import com.larqrep.benchmark.core.Model;
import com.larqrep.benchmark.core.Network;
import com.larqrep.benchmark.core.OptionException;
import com.larqrep.benchmark.core.Options;
import com.larqrep.benchmark.core.Report;
import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.json.JSONObject;

/**
 * What outlives the screens: the user's choices, the running task and the last results.
 *
 * <p>There is one of a process. All networks run on its one thread, so that nothing else of the app disturbs a
 * measurement. All else happens on the main thread.
 */
final class Session {
  /** Log's tag, also for run_on_device.py. */
  static final String TAG = "larq-rep";
  /** Name of the report if the options give none. */
  static final String REPORT = "result.json";

  private static final long TICK_MS = 100;
  private static final long COOL_POLL_MS = 200;
  /** A phone in the sun never gets cool. */
  private static final long COOL_MOST_MS = 180_000;

  private static final String KEY = "session.";

  /** Is told of every change. */
  interface Observer {
    void changed();
  }

  private static Machine nextMachine = new Machine();
  private static Session instance;

  private final Context context;
  private final Machine machine;
  private final Handler main = new Handler(Looper.getMainLooper());
  private final ExecutorService worker = Executors.newSingleThreadExecutor(run -> new Thread(run, "larq-rep"));
  private final List<Observer> observers = new ArrayList<>();
  private final Map<String, Source> opened = new LinkedHashMap<>();
  private final boolean sustainable;
  private final Runnable tick = this::tick;
  private Catalog catalog;
  private List<String> implementations;
  private Task running;
  private boolean fresh = true;

  /** The user's choices; numbers are texts, because a half-typed one is none. */
  String model;
  int numThreads = 1;
  String implementation;
  boolean fuse = true;
  String runs;
  String warmUp;
  /** The last benchmark and the last comparison; null before. */
  Task benchmark;
  Task comparison;
  /** Whether the last benchmark has a result that nobody has seen. */
  boolean unseen;
  /** Why no benchmark was started; null if nothing is wrong. */
  String problem;
  /** What is tried: the network, the drawing, the picture. */
  String tried;
  List<float[]> drawing = new ArrayList<>();
  Picture picture;
  /** Why no picture was read; null if nothing is wrong. */
  String pictureProblem;

  private Session(Context context, Machine machine) {
    this.context = context;
    this.machine = machine;
    Options defaults = new Options.Builder().build();
    runs = String.valueOf(defaults.numRuns);
    warmUp = String.valueOf(defaults.warmupRuns);
    PowerManager power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
    sustainable = power != null && power.isSustainedPerformanceModeSupported();
  }

  /** The session of this process. */
  static Session of(Context context) {
    if (instance == null) {
      instance = new Session(context.getApplicationContext(), nextMachine);
    }
    return instance;
  }

  /** Begins a new process, as it were, with another machine. For tests. */
  static void restart(Machine machine) {
    if (instance != null) {
      if (instance.running != null) {
        instance.running.cancel.set(true);
      }
      instance.worker.shutdown();
    }
    instance = null;
    nextMachine = machine;
  }

  /** Keeps the choices for the time after Android has ended the process, as it does behind a camera app. */
  void save(Bundle state) {
    state.putString(KEY + "model", model);
    state.putInt(KEY + "numThreads", numThreads);
    state.putString(KEY + "implementation", implementation);
    state.putBoolean(KEY + "fuse", fuse);
    state.putString(KEY + "runs", runs);
    state.putString(KEY + "warmUp", warmUp);
    state.putString(KEY + "tried", tried);
    state.putStringArrayList(KEY + "opened", new ArrayList<>(opened.keySet()));
  }

  /** Takes choices that were kept, once, if this process is another one; null if there are none. */
  void restore(Bundle state) {
    if (fresh && state != null && state.containsKey(KEY + "runs")) {
      model = state.getString(KEY + "model");
      numThreads = state.getInt(KEY + "numThreads");
      implementation = state.getString(KEY + "implementation");
      fuse = state.getBoolean(KEY + "fuse");
      runs = state.getString(KEY + "runs");
      warmUp = state.getString(KEY + "warmUp");
      tried = state.getString(KEY + "tried");
      for (String path : state.getStringArrayList(KEY + "opened")) {
        if (new File(path).isFile()) {
          add(new Source(new File(path)));
        }
      }
    }
    fresh = false;
  }

  void add(Observer observer) {
    observers.add(observer);
  }

  void remove(Observer observer) {
    observers.remove(observer);
  }

  private void changed() {
    for (Observer observer : new ArrayList<>(observers)) {
      observer.changed();
    }
  }

  /** The task that goes on; null if none does. */
  Task running() {
    return running;
  }

  /** Whether the device can hold a speed for long if asked to. */
  boolean canSustain() {
    return sustainable;
  }

  // Networks.

  /**
   * The networks that the app brings along.
   *
   * @throws EngineException if their list is missing or damaged
   */
  private Catalog catalog() throws EngineException {
    if (catalog == null) {
      try {
        catalog = Catalog.parse(Files.text(context.getAssets().open("networks.json")));
      } catch (IOException | IllegalArgumentException error) {
        throw new EngineException(context.getString(R.string.cannot_read, "networks.json", Texts.of(error)), error);
      }
    }
    return catalog;
  }

  /** All networks to choose from: the bundled ones, then the files that were opened. */
  List<Source> sources() {
    List<Source> sources = new ArrayList<>();
    try {
      for (Network network : catalog().networks()) {
        sources.add(new Source(network));
      }
    } catch (EngineException error) {
      Log.e(TAG, error.getMessage()); // Files can still be opened; warning() tells.
    }
    sources.addAll(opened.values());
    return sources;
  }

  /** The chosen network, else the first; null if there is none at all. */
  Source chosen() {
    Source first = null;
    for (Source source : sources()) {
      if (source.model.equals(model)) {
        return source;
      }
      first = first == null ? source : first;
    }
    return first;
  }

  /** Copies a file into the cache and, if it is a network, adds it to them and chooses it. */
  void open(Uri uri) {
    worker.execute(() -> {
      try {
        Source source = Source.copy(context, uri);
        main.post(() -> {
          add(source);
          model = source.model;
          problem = null;
          changed();
        });
      } catch (EngineException | RuntimeException | Error error) { // An error must not end the app.
        main.post(() -> {
          problem = Texts.of(error);
          changed();
        });
      }
    });
  }

  /** Adds a file to the networks. Names tell them apart, also in reports: a second one of a name gets another. */
  private void add(Source file) {
    opened.remove(file.model);
    Source added = file;
    for (boolean taken = true; taken;) {
      taken = false;
      for (Source other : sources()) {
        taken |= other.name.equals(added.name);
      }
      added = taken ? added.named(context.getString(R.string.second_of_a_name, added.name)) : added;
    }
    opened.put(added.model, added);
  }

  /** Reads a picture to try. The screen that is seen then, maybe another one, shows it, or why it cannot be read. */
  void read(Uri uri) {
    pictureProblem = null;
    worker.execute(() -> {
      try {
        Picture read = Picture.read(context, uri);
        main.post(() -> take(read, null));
      } catch (OutOfMemoryError error) {
        main.post(() -> take(picture, context.getString(R.string.too_large)));
      } catch (IOException | RuntimeException | Error error) { // The other app's code may throw anything.
        main.post(() -> take(picture,
            context.getString(R.string.cannot_read, context.getString(R.string.picture), Texts.of(error))));
      }
    });
  }

  void take(Picture taken, String trouble) {
    picture = taken;
    pictureProblem = trouble;
    changed();
  }

  // The native side.

  /** Instruction sets of this processor, the fastest first; none if the libraries cannot be loaded. */
  List<String> implementations() {
    if (implementations == null) {
      try {
        implementations = machine.implementations();
      } catch (LinkageError error) {
        Log.e(TAG, "The delegate cannot be loaded.", error); // A benchmark fails with the same error and shows it.
        implementations = Collections.emptyList();
      }
    }
    return implementations;
  }

  /** Version of TFLite; null if it cannot be loaded. */
  String tfliteVersion() {
    try {
      return machine.tfliteVersion();
    } catch (LinkageError error) {
      return null;
    }
  }

  /** What stands against running anything here, found without loading TFLite; null if nothing does. */
  String warning() {
    try {
      catalog();
    } catch (EngineException error) {
      return error.getMessage();
    }
    return pageWarning();
  }

  private String pageWarning() {
    return machine.pageSize() <= DeviceInfo.TFLITE_PAGE ? null
        : context.getString(R.string.large_pages, machine.pageSize() / 1024, DeviceInfo.TFLITE_PAGE / 1024);
  }

  /** Loads a network; for the thread of the session. */
  Model open(Source source, Options options) throws EngineException {
    String hint = pageWarning();
    return machine.open(source.load(context), options, hint == null ? "" : hint);
  }

  /** Runs on the thread of the session, after what goes on there. */
  void execute(Runnable run) {
    worker.execute(run);
  }

  /** Runs on the main thread, from another. */
  void post(Runnable run) {
    main.post(run);
  }

  // Tasks.

  /**
   * The user's choices as options.
   *
   * @throws OptionException if one is wrong
   */
  Options options(boolean compare) {
    Source source = chosen();
    return new Options.Builder(Options.parse("--num_runs='" + runs + "' --warmup_runs='" + warmUp + "'"))
        .setModel(source == null || compare ? null : source.model)
        .setNumThreads(numThreads)
        .setImplementation(implementation)
        .setFuse(fuse)
        .setCompare(compare)
        .build();
  }

  /** Starts what a command line says, and writes the report into a file and the log. */
  void start(String arguments) {
    String output = REPORT;
    try {
      String named = Options.outputOf(arguments); // Also of a line that is wrong: somebody waits for that file.
      output = named == null ? REPORT : named;
      Options options = Options.parse(arguments);
      if (running != null) {
        throw new OptionException(context.getString(R.string.running_already));
      }
      List<Source> sources = new ArrayList<>();
      if (options.compare && options.model == null) {
        for (Network network : catalog().networks()) {
          sources.add(new Source(network));
        }
      } else {
        sources.add(Source.find(context, catalog(), options.model));
      }
      start(options, sources, true);
    } catch (EngineException | OptionException error) {
      problem = error.getMessage();
      write(output, report().error(problem));
    }
  }

  /** Starts a benchmark of one network, or a comparison of several. */
  void start(Options options, List<Source> sources) {
    start(options, sources, false);
  }

  private void start(Options options, List<Source> sources, boolean write) {
    Task task = new Task(options);
    running = task;
    problem = null;
    if (options.compare) {
      comparison = task;
    } else {
      benchmark = task;
      unseen = false;
    }
    worker.execute(() -> work(task, sources, write));
    tick();
  }

  /** The thread of the session tells nothing by itself, so as not to disturb what it measures. */
  private void tick() {
    if (running != null) {
      changed();
      main.postDelayed(tick, TICK_MS);
    }
  }

  /** Ends the running task after the inference that goes on. */
  void cancel() {
    if (running != null) {
      running.cancel.set(true);
      changed();
    }
  }

  private void work(Task task, List<Source> sources, boolean write) {
    Task.State state = Task.State.FAILED;
    String reason = null;
    try {
      if (task.options.compare) {
        compare(task, sources);
      } else {
        measure(task, sources.get(0), task.options, 0, 1);
      }
      state = Task.State.DONE;
    } catch (CancelledException cancelled) {
      state = Task.State.CANCELLED;
    } catch (EngineException error) {
      reason = error.getMessage();
    } catch (RuntimeException | Error error) { // Whatever it is, the task has to end.
      Log.e(TAG, "A benchmark failed.", error);
      reason = context.getString(R.string.unexpected, Texts.of(error));
    }
    Task.State end = state;
    String error = reason;
    main.post(() -> {
      task.state = end;
      task.error = error;
      if (write) {
        worker.execute(() -> { // A report may have megabytes.
          writeReport(task);
          main.post(() -> finish(false));
        });
      } else {
        finish(!task.options.compare && end == Task.State.DONE);
      }
    });
  }

  private void writeReport(Task task) {
    String name = task.options.output == null ? REPORT : task.options.output;
    try {
      write(name, task.json(report()));
    } catch (RuntimeException | Error error) {
      Log.e(TAG, name + " cannot be written.", error);
    }
  }

  private void finish(boolean isNews) {
    running = null;
    unseen |= isNews;
    changed();
  }

  private void compare(Task task, List<Source> sources) throws CancelledException, EngineException {
    List<Options> plan = Comparison.plan(task.options, machine.implementations(), DeviceInfo.cores());
    int row = 0;
    for (Source source : sources) {
      for (Options options : plan) {
        coolDown(task);
        measure(task, source, options, row++, plan.size() * sources.size());
      }
    }
  }

  /** Waits until the device does not throttle, or for three minutes. */
  private void coolDown(Task task) throws CancelledException {
    for (long waited = 0; machine.thermalStatus(context) > 0 && waited < COOL_MOST_MS; waited += COOL_POLL_MS) {
      task.step = context.getString(R.string.cooling);
      try {
        Thread.sleep(COOL_POLL_MS);
      } catch (InterruptedException error) {
        throw new CancelledException();
      }
      if (task.cancel.get()) {
        throw new CancelledException();
      }
    }
  }

  private void measure(Task task, Source source, Options options, int row, int rows)
      throws CancelledException, EngineException {
    task.step = !task.options.compare ? source.name : context.getString(R.string.step_of_comparison, source.name,
        options.implementation == null ? machine.implementations().get(0) : options.implementation,
        context.getResources().getQuantityString(R.plurals.threads, options.numThreads, options.numThreads));
    JSONObject before = DeviceInfo.heat(context);
    try (Model model = open(source, options)) {
      BenchmarkResult result = Benchmark.run(model, options, source.reference(context), (done, total) -> {
        task.total = total * rows;
        task.done = total * row + done;
      }, task.cancel);
      JSONObject after = DeviceInfo.heat(context);
      main.post(() -> task.add(result, before, after));
    }
  }

  // Reports.

  /** What all reports say of the device and the app. */
  Report report() {
    return new Report(DeviceInfo.json(), DeviceInfo.appVersion(context), tfliteVersion());
  }

  private void write(String name, JSONObject json) {
    for (String line : LogLines.split(name, json.toString())) {
      Log.i(TAG, line);
    }
    File folder = context.getExternalFilesDir(null);
    try {
      if (folder == null) {
        throw new IOException(context.getString(R.string.no_storage));
      }
      Files.write(new File(folder, name), json.toString());
    } catch (IOException error) {
      Log.e(TAG, name + " cannot be written: " + error.getMessage());
    }
  }
}
