package com.larqrep.benchmark.core;

/** A file, an option or a library with which no network can be run. Its message is for the user. */
public final class EngineException extends Exception {
  private static final long serialVersionUID = 1;

  public EngineException(String message) {
    super(message);
  }

  public EngineException(String message, Throwable cause) {
    super(message, cause);
  }
}
