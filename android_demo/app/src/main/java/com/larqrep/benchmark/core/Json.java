package com.larqrep.benchmark.core;

import org.json.JSONArray;
import org.json.JSONObject;

/** JSON has no NaN and no infinity: they become null. */
final class Json {
  private Json() {}

  static Object number(double value) {
    return Double.isNaN(value) || Double.isInfinite(value) ? JSONObject.NULL : (Object) value;
  }

  static JSONArray numbers(double[] values) {
    JSONArray array = new JSONArray();
    for (double value : values) {
      array.put(number(value));
    }
    return array;
  }

  static JSONArray numbers(int[] values) {
    JSONArray array = new JSONArray();
    for (int value : values) {
      array.put(value);
    }
    return array;
  }
}
