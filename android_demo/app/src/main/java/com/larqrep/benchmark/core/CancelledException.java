package com.larqrep.benchmark.core;

/** The user has cancelled the benchmark. */
public final class CancelledException extends Exception {
  private static final long serialVersionUID = 1;

  public CancelledException() {
    super("The benchmark was cancelled.");
  }
}
