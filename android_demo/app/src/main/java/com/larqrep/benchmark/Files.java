package com.larqrep.benchmark;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;

/** Reads and writes whole files. */
final class Files {
  private Files() {}

  /** The text of a stream, which is closed. */
  static String text(InputStream stream) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    copy(stream, bytes);
    return new String(bytes.toByteArray(), StandardCharsets.UTF_8);
  }

  /** The text of a file. */
  static String text(File file) throws IOException {
    return text(new FileInputStream(file));
  }

  /** Copies all of a stream, and closes both. */
  static void copy(InputStream from, OutputStream to) throws IOException {
    try (InputStream source = from; OutputStream target = to) {
      byte[] bytes = new byte[1 << 16];
      for (int count = source.read(bytes); count >= 0; count = source.read(bytes)) {
        target.write(bytes, 0, count);
      }
    }
  }

  /** Writes a text under another name first: who finds the file finds all of it. */
  static void write(File file, String text) throws IOException {
    File part = new File(file.getPath() + ".part");
    try (OutputStream stream = new FileOutputStream(part)) {
      stream.write(text.getBytes(StandardCharsets.UTF_8));
    }
    if (!part.renameTo(file)) {
      throw new IOException(part + " cannot be renamed to " + file);
    }
  }
}
