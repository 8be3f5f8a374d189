package com.larqrep.runtime;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.tensorflow.lite.Delegate;

/**
 * Runs the binary layers of Larq Compute Engine's files on stock TFLite.
 *
 * <pre>{@code
 * LarqRepDelegate delegate = new LarqRepDelegate();
 * Interpreter interpreter = new Interpreter(model, new Interpreter.Options().addDelegate(delegate));
 * interpreter.run(input, output);
 * }</pre>
 *
 * <p>An interpreter does not own its delegate: close the interpreter first, then the delegate. Several interpreters may
 * share one delegate.
 */
public final class LarqRepDelegate implements Delegate {
  /** The version of larq-rep whose delegate this is. */
  public static final String VERSION = "0.2.0";

  private static final String LISTED = "implementations of this processor: ";
  private static boolean loaded;

  private long handle;

  /** How the delegate works. What is not set here comes from the delegate, which has good defaults. */
  public static final class Options {
    private final Map<String, String> values = new LinkedHashMap<>();

    /**
     * Sets the number of threads.
     *
     * @param threads 1 to 64; 0, the default, uses the number of {@code Interpreter.Options.setNumThreads}
     * @return this
     */
    public Options setNumThreads(int threads) {
      return set("num_threads", Integer.toString(threads));
    }

    /**
     * Sets the instruction set.
     *
     * @param name one of {@link LarqRepDelegate#implementations()}; by default the first of them
     * @return this
     */
    public Options setImplementation(String name) {
      return set("implementation", name);
    }

    /**
     * Sets whether the delegate also takes over the neighbours of binary convolutions.
     *
     * @param fuse by default true
     * @return this
     */
    public Options setFuse(boolean fuse) {
      return set("fuse", fuse ? "1" : "0");
    }

    /**
     * Sets whether the delegate prints the times of its steps to standard error when an interpreter is closed.
     *
     * @param profile by default false
     * @return this
     */
    public Options setProfile(boolean profile) {
      return set("profile", profile ? "1" : "0");
    }

    private Options set(String name, String value) {
      values.put(name, value);
      return this;
    }
  }

  /**
   * Creates a delegate with the fastest implementation of this processor.
   *
   * @throws UnsatisfiedLinkError if the process has no library for its ABI
   */
  public LarqRepDelegate() {
    this(new Options());
  }

  /**
   * Creates a delegate.
   *
   * @param options how it works
   * @throws IllegalArgumentException if the delegate refuses an option; the message says which, and what it expects
   * @throws UnsatisfiedLinkError if the process has no library for its ABI
   */
  public LarqRepDelegate(Options options) {
    load();
    handle = create(options.values.keySet().toArray(new String[0]), options.values.values().toArray(new String[0]));
  }

  /**
   * Lists the instruction sets that this processor runs.
   *
   * @return names for {@link Options#setImplementation}, the fastest first
   * @throws UnsatisfiedLinkError if the process has no library for its ABI
   */
  public static List<String> implementations() {
    // The delegate lists them where it refuses one that does not exist.
    try {
      new LarqRepDelegate(new Options().setImplementation("?")).close();
    } catch (IllegalArgumentException refused) {
      String message = refused.getMessage();
      int start = message.indexOf(LISTED);
      if (start < 0) throw refused;
      String names = message.substring(start + LISTED.length(), message.lastIndexOf('.'));
      return Collections.unmodifiableList(new ArrayList<>(Arrays.asList(names.split(","))));
    }
    throw new AssertionError("larq-rep: the delegate took an implementation that does not exist.");
  }

  /**
   * Returns the native {@code TfLiteDelegate}, for the interpreter.
   *
   * @throws IllegalStateException after {@link #close}
   */
  @Override
  public synchronized long getNativeHandle() {
    if (handle == 0) {
      throw new IllegalStateException("larq-rep: this delegate is closed. Create another one for a new interpreter.");
    }
    return handle;
  }

  /** Frees the delegate. Closing it twice does no harm. */
  @Override
  public synchronized void close() {
    if (handle != 0) destroy(handle);
    handle = 0;
  }

  private static synchronized void load() {
    if (loaded) return;
    try {
      System.loadLibrary("larq_rep_delegate");
      System.loadLibrary("larq_rep_jni"); // needs the first one
      loaded = true;
    } catch (UnsatisfiedLinkError error) {
      UnsatisfiedLinkError explained =
          new UnsatisfiedLinkError(
              "larq-rep: cannot load liblarq_rep_delegate.so and liblarq_rep_jni.so in this process of os.arch "
                  + System.getProperty("os.arch")
                  + "; expected a 64-bit process of arm64-v8a or x86_64. Check that the app packages both libraries for"
                  + " its ABI (abiFilters). "
                  + error.getMessage());
      explained.initCause(error);
      throw explained;
    }
  }

  // Synchronized because the delegate's message passes through one static buffer.
  private static synchronized native long create(String[] keys, String[] values);

  private static native void destroy(long handle);
}
