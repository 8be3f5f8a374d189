package com.larqrep.benchmark.core;

import org.json.JSONArray;
import org.json.JSONObject;

/** Reads values of a file's metadata and refuses those that break their rule; null is as good as left out. */
final class Metadata {
  /** Numbers beyond these are damage. */
  static final double LARGEST = 1e6;
  static final double LEAST = 1e-6;

  private final JSONObject values;
  private final String place;

  /**
   * @param place what stands before a name in messages
   */
  Metadata(JSONObject values, String place) {
    this.values = values;
    this.place = place;
  }

  private Object value(String name) {
    return values.isNull(name) ? null : values.opt(name);
  }

  private IllegalArgumentException wrong(String name, String expected) {
    Object value = value(name);
    String text = value instanceof String ? JSONObject.quote((String) value) : String.valueOf(value);
    text = text.length() > 60 ? text.substring(0, 60) + "..." : text;
    return new IllegalArgumentException("The metadata of the file say " + place + name + " = " + text + ", expected "
        + expected + ". Convert the file again.");
  }

  JSONObject object(String name) {
    Object value = value(name);
    if (value != null && !(value instanceof JSONObject)) {
      throw wrong(name, "an object");
    }
    return (JSONObject) value;
  }

  boolean bool(String name, boolean missing) {
    Object value = value(name);
    if (value != null && !(value instanceof Boolean)) {
      throw wrong(name, "true or false");
    }
    return value == null ? missing : (Boolean) value;
  }

  /** Checks that a number, if it is stated, is the expected one. */
  void integer(String name, int right, String expected) {
    Object value = value(name);
    if (value != null && !(value instanceof Number && ((Number) value).doubleValue() == right)) {
      throw wrong(name, expected);
    }
  }

  /** Checks that numbers, if they are stated, are the expected ones. */
  void integers(String name, int[] right, String expected) {
    double[] found = numbers(name, right.length, Double.NEGATIVE_INFINITY, expected);
    for (int i = 0; found != null && i < right.length; i++) {
      if (found[i] != right[i]) {
        throw wrong(name, expected);
      }
    }
  }

  /** So many numbers, all above a bound; null if none are stated. */
  double[] numbers(String name, int count, double above, String expected) {
    Object value = value(name);
    if (value == null) {
      return null;
    }
    if (!(value instanceof JSONArray) || ((JSONArray) value).length() != count) {
      throw wrong(name, expected);
    }
    double[] numbers = new double[count];
    for (int i = 0; i < count; i++) {
      Object one = ((JSONArray) value).opt(i);
      if (!isNumber(one) || !(((Number) one).doubleValue() > above)) {
        throw wrong(name, expected);
      }
      numbers[i] = ((Number) one).doubleValue();
    }
    return numbers;
  }

  /** Two numbers, the smaller first; null if none are stated. */
  double[] range(String name) {
    String expected = "two numbers, the smaller first";
    double[] range = numbers(name, 2, Double.NEGATIVE_INFINITY, expected);
    if (range != null && range[0] >= range[1]) {
      throw wrong(name, expected);
    }
    return range;
  }

  /** A number that is not below the least, which is also taken if none is stated. */
  double from(String name, int least) {
    Object value = value(name);
    if (value == null) {
      return least;
    }
    if (!isNumber(value) || ((Number) value).doubleValue() < least) {
      throw wrong(name, "a number from " + least + " on");
    }
    return ((Number) value).doubleValue();
  }

  /** Names; null if none are stated. */
  String[] names(String name) {
    Object value = value(name);
    if (value == null) {
      return null;
    }
    JSONArray array = value instanceof JSONArray ? (JSONArray) value : null;
    String[] names = new String[array == null ? 0 : array.length()];
    boolean right = array != null;
    for (int i = 0; right && i < names.length; i++) {
      right = array.opt(i) instanceof String;
      names[i] = right ? (String) array.opt(i) : null;
    }
    if (!right) {
      throw wrong(name, "a list of names");
    }
    return names;
  }

  private static boolean isNumber(Object value) {
    return value instanceof Number && Math.abs(((Number) value).doubleValue()) < LARGEST;
  }
}
