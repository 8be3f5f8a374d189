package com.larqrep.benchmark.core;

import java.util.Collection;
import java.util.Locale;

/** Finds the name that a mistyped one was meant to be. */
final class Suggestion {
  private Suggestion() {}

  /** A sentence such as " Did you mean X?", or nothing if no name is near: a third of the letters may be wrong. */
  static String of(String typed, Collection<String> names) {
    String lower = typed.toLowerCase(Locale.ROOT);
    String nearest = null;
    int least = Integer.MAX_VALUE;
    for (String name : names) {
      int distance = distance(lower, name.toLowerCase(Locale.ROOT));
      if (distance < least && distance <= Math.max(1, name.length() / 3)) {
        nearest = name;
        least = distance;
      }
    }
    return nearest == null ? "" : " Did you mean " + nearest + "?";
  }

  /** Letters to insert, to delete or to replace (Levenshtein). */
  private static int distance(String a, String b) {
    int[] row = new int[b.length() + 1];
    for (int j = 0; j <= b.length(); j++) {
      row[j] = j;
    }
    for (int i = 1; i <= a.length(); i++) {
      int diagonal = row[0];
      row[0] = i;
      for (int j = 1; j <= b.length(); j++) {
        int replaced = diagonal + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
        diagonal = row[j];
        row[j] = Math.min(replaced, 1 + Math.min(diagonal, row[j - 1]));
      }
    }
    return row[b.length()];
  }
}
