package com.larqrep.benchmark.core;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** Splits a text into lines that the system's log does not cut off. */
public final class LogLines {
  /** A line of the log has fewer bytes. */
  public static final int LIMIT = 4000;

  private LogLines() {}

  /**
   * The lines {@code NAME i/n PART}, each below 4,000 bytes of UTF-8; the parts in order are the text.
   *
   * @param name name of the output file, at most 200 bytes
   * @param text a text without line breaks
   */
  public static List<String> split(String name, String text) {
    // As many digits as n will have are not known before; a longer prefix only makes parts shorter.
    for (int digits = 1;; digits++) {
      int prefix = bytes(name) + 3 + 2 * digits;
      List<String> parts = parts(text, LIMIT - 1 - prefix);
      if (String.valueOf(parts.size()).length() > digits) {
        continue;
      }
      for (int i = 0; i < parts.size(); i++) {
        parts.set(i, name + " " + (i + 1) + "/" + parts.size() + " " + parts.get(i));
      }
      return parts;
    }
  }

  private static List<String> parts(String text, int limit) {
    List<String> parts = new ArrayList<>();
    int start = 0;
    int size = 0;
    for (int i = 0; i < text.length();) {
      int end = text.offsetByCodePoints(i, 1); // Never within a letter.
      int letter = bytes(text.substring(i, end));
      if (size + letter > limit) {
        parts.add(text.substring(start, i));
        start = i;
        size = 0;
      }
      size += letter;
      i = end;
    }
    parts.add(text.substring(start));
    return parts;
  }

  private static int bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8).length;
  }
}
