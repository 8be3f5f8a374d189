package com.larqrep.benchmark.core;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * The options of a benchmark, with the names and defaults of the command {@code lce-run}.
 *
 * <p>{@link #parse} reads them from a command line such as {@code --model=ResNet20 --num_threads 4}.
 */
public final class Options {
  /** Most threads that the delegate takes. */
  public static final int MAX_THREADS = 64;
  /** Most runs; the time of each is kept. */
  public static final int MAX_RUNS = 100_000;

  private static final int MAX_NAME_BYTES = 200; // Leaves room in a line of the log.
  private static final List<String> NAMES =
      Arrays.asList("--model", "--num_threads", "--warmup_runs", "--num_runs", "--top", "--implementation", "--no_fuse",
          "--output", "--compare", "--random", "--json");
  private static final List<String> FLAGS = Arrays.asList("--no_fuse", "--compare", "--random", "--json");
  private static final List<String> VARIED = Arrays.asList("--num_threads", "--implementation");

  /** Name of a bundled network or path of a file; null for the first bundled one. */
  public final String model;
  /** Threads of TFLite and of the delegate. */
  public final int numThreads;
  /** Runs between the first and the timed ones. */
  public final int warmupRuns;
  /** Timed runs. */
  public final int numRuns;
  /** How many of the largest outputs are reported. */
  public final int top;
  /** Instruction set of the delegate; null for the best. */
  public final String implementation;
  /** Whether the delegate also takes the neighbours of LCE's operators. */
  public final boolean fuse;
  /** Plain name of the JSON file; null for the default. */
  public final String output;
  /** Whether all networks, implementations and threads are compared. */
  public final boolean compare;

  private Options(Builder builder) {
    model = builder.model;
    numThreads = within("--num_threads", builder.numThreads, 1, MAX_THREADS);
    warmupRuns = within("--warmup_runs", builder.warmupRuns, 0, MAX_RUNS);
    numRuns = within("--num_runs", builder.numRuns, 1, MAX_RUNS);
    top = within("--top", builder.top, 0, Integer.MAX_VALUE);
    implementation = builder.implementation;
    fuse = builder.fuse;
    output = builder.output;
    compare = builder.compare;
    named("--model", model);
    named("--implementation", implementation);
    if (output != null && !isPlainName(output)) {
      throw new OptionException("--output should be a plain file name of at most " + MAX_NAME_BYTES
          + " bytes, such as result.json, found '" + output + "'.");
    }
  }

  /** Sets options one by one; {@link #build} throws an {@link OptionException} for a wrong value. */
  public static final class Builder {
    private String model;
    private int numThreads = 1;
    private int warmupRuns = 5;
    private int numRuns = 50;
    private int top = 5;
    private String implementation;
    private boolean fuse = true;
    private String output;
    private boolean compare;

    public Builder() {}

    /** Begins with the values of other options. */
    public Builder(Options options) {
      model = options.model;
      numThreads = options.numThreads;
      warmupRuns = options.warmupRuns;
      numRuns = options.numRuns;
      top = options.top;
      implementation = options.implementation;
      fuse = options.fuse;
      output = options.output;
      compare = options.compare;
    }

    public Builder setModel(String value) {
      model = value;
      return this;
    }

    public Builder setNumThreads(int value) {
      numThreads = value;
      return this;
    }

    public Builder setWarmupRuns(int value) {
      warmupRuns = value;
      return this;
    }

    public Builder setNumRuns(int value) {
      numRuns = value;
      return this;
    }

    public Builder setTop(int value) {
      top = value;
      return this;
    }

    public Builder setImplementation(String value) {
      implementation = value;
      return this;
    }

    public Builder setFuse(boolean value) {
      fuse = value;
      return this;
    }

    public Builder setOutput(String value) {
      output = value;
      return this;
    }

    public Builder setCompare(boolean value) {
      compare = value;
      return this;
    }

    /**
     * The options.
     *
     * @throws OptionException if a value is wrong
     */
    public Options build() {
      return new Options(this);
    }
  }

  /**
   * Reads a command line. {@code --random} and {@code --json} are accepted and say what is done anyway.
   *
   * @param arguments options between blanks, as {@code --name=value} or {@code --name value}; quotes, single or double,
   *     keep blanks together; null is an empty line
   * @throws OptionException if an option is unknown or its value is wrong
   */
  public static Options parse(String arguments) {
    List<String> words = split(arguments == null ? "" : arguments);
    Builder builder = new Builder();
    String varied = null; // An option for what a comparison tries out.
    for (int i = 0; i < words.size(); i++) {
      String word = words.get(i);
      int equals = word.startsWith("--") ? word.indexOf('=') : -1;
      String name = equals < 0 ? word : word.substring(0, equals);
      if (!NAMES.contains(name)) {
        throw new OptionException("Unknown option " + name + "." + Suggestion.of(name, NAMES) + " The options are "
            + TextFormat.list(NAMES, " and ") + ".");
      }
      String value = equals < 0 ? null : word.substring(equals + 1);
      if (FLAGS.contains(name)) {
        if (value != null) {
          throw new OptionException(name + " takes no value, found '" + value + "'.");
        }
      } else if (value == null) {
        if (i + 1 == words.size() || isOption(words.get(i + 1))) {
          throw new OptionException(name + " needs a value: " + name + "=VALUE.");
        }
        value = words.get(++i);
      }
      set(builder, name, value);
      varied = VARIED.contains(name) ? name : varied;
    }
    if (builder.compare && varied != null) {
      throw new OptionException(varied + " has no effect with --compare, which tries several: leave it out.");
    }
    return builder.build();
  }

  /**
   * The name of the report in a command line whose other options may be wrong; null if it has none.
   *
   * @param arguments as {@link #parse} takes them
   */
  public static String outputOf(String arguments) {
    String output = null;
    try {
      List<String> words = split(arguments == null ? "" : arguments);
      for (int i = 0; i < words.size(); i++) {
        String word = words.get(i);
        output = word.startsWith("--output=") ? word.substring("--output=".length())
            : word.equals("--output") && i + 1 < words.size() ? words.get(i + 1) : output;
      }
    } catch (OptionException quotes) {
      return null;
    }
    return output != null && isPlainName(output) ? output : null;
  }

  private static void set(Builder builder, String name, String value) {
    switch (name) {
      case "--model":
        builder.setModel(value);
        break;
      case "--num_threads":
        builder.setNumThreads(number(name, value));
        break;
      case "--warmup_runs":
        builder.setWarmupRuns(number(name, value));
        break;
      case "--num_runs":
        builder.setNumRuns(number(name, value));
        break;
      case "--top":
        builder.setTop(number(name, value));
        break;
      case "--implementation":
        builder.setImplementation(value);
        break;
      case "--no_fuse":
        builder.setFuse(false);
        break;
      case "--output":
        builder.setOutput(value);
        break;
      case "--compare":
        builder.setCompare(true);
        break;
      default: // --random and --json are what is done.
    }
  }

  /** Whether a word begins an option; as for lce-run, a negative number and a word with blanks do not. */
  private static boolean isOption(String word) {
    return word.matches("(?s)-.+") && !word.matches("-\\d+|-\\d*\\.\\d+") && word.indexOf(' ') < 0;
  }

  private static int number(String name, String value) {
    try {
      return Integer.parseInt(value);
    } catch (NumberFormatException error) {
      throw new OptionException(name + " should be a whole number, found '" + value + "'.");
    }
  }

  private static int within(String name, int value, int least, int most) {
    if (value < least || value > most) {
      String bound = value < least ? "at least " + least : "at most " + most;
      throw new OptionException(name + " should be " + bound + ", found " + value + ".");
    }
    return value;
  }

  private static void named(String name, String value) {
    if (value != null && value.isEmpty()) {
      throw new OptionException(name + " should be a name, found ''.");
    }
  }

  private static boolean isPlainName(String name) {
    return !name.isEmpty() && !name.equals(".") && !name.equals("..") && name.indexOf('/') < 0
        && !name.matches("(?s).*\\p{Cntrl}.*")
        && name.getBytes(StandardCharsets.UTF_8).length <= MAX_NAME_BYTES;
  }

  /** Splits at blanks that no quotes enclose, as a shell does. */
  private static List<String> split(String line) {
    List<String> words = new ArrayList<>();
    StringBuilder word = null;
    char quote = 0;
    for (char c : line.toCharArray()) {
      if (quote == 0 && Character.isWhitespace(c)) {
        if (word != null) {
          words.add(word.toString());
        }
        word = null;
        continue;
      }
      word = word == null ? new StringBuilder() : word; // Quotes around nothing are an empty word.
      if (quote == 0 && (c == '"' || c == '\'')) {
        quote = c;
      } else if (c == quote) {
        quote = 0;
      } else {
        word.append(c);
      }
    }
    if (quote != 0) {
      throw new OptionException("The options have an opening " + quote + " without a closing one: " + line);
    }
    if (word != null) {
      words.add(word.toString());
    }
    return words;
  }
}
