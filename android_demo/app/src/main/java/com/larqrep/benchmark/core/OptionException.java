package com.larqrep.benchmark.core;

/** An option that is unknown or has a wrong value. Its message is for the user. */
public final class OptionException extends IllegalArgumentException {
  private static final long serialVersionUID = 1;

  public OptionException(String message) {
    super(message);
  }
}
