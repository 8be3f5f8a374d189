package com.larqrep.benchmark.core;

import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/** The outputs of the desktop runtime for inputs of {@link InputGenerator}, as tools/assets.py writes them. */
public final class Reference {
  private final String runtime;
  private final float[][][] outputs; // Of each input.

  private Reference(String runtime, float[][][] outputs) {
    this.runtime = runtime;
    this.outputs = outputs;
  }

  /**
   * Reads a NAME.reference.json.
   *
   * @param file its name in messages
   * @throws IllegalArgumentException if it is damaged, or of another schema or generator
   */
  public static Reference parse(String file, String json) {
    try {
      JSONObject object = new JSONObject(json);
      if (object.optInt("schema") != 1 || !"lowbias32".equals(object.optString("inputs"))) {
        throw new IllegalArgumentException(file + " has schema " + object.opt("schema") + " and inputs "
            + object.opt("inputs") + ", expected 1 and lowbias32. Make it with this version's tools.");
      }
      JSONArray array = object.getJSONArray("outputs");
      JSONArray further = object.has("further") ? object.getJSONArray("further") : new JSONArray();
      float[][][] outputs = new float[1 + further.length()][array.length()][];
      for (int i = 0; i < array.length(); i++) {
        outputs[0][i] = numbers(array.getJSONObject(i).getJSONArray("values"));
        for (int k = 1; k < outputs.length; k++) {
          outputs[k][i] = numbers(further.getJSONArray(k - 1).getJSONArray(i));
        }
      }
      return new Reference(object.optString("runtime"), outputs);
    } catch (JSONException error) {
      throw new IllegalArgumentException(file + " is damaged: " + error.getMessage() + ". Make it again.", error);
    }
  }

  private static float[] numbers(JSONArray values) throws JSONException {
    float[] numbers = new float[values.length()];
    for (int i = 0; i < numbers.length; i++) {
      numbers[i] = (float) values.getDouble(i);
    }
    return numbers;
  }

  /** The runtime and version that computed it. */
  public String runtime() {
    return runtime;
  }

  /** Of how many inputs there are outputs, at least one. */
  public int inputs() {
    return outputs.length;
  }

  /**
   * All numbers of each output.
   *
   * @param input number of the input of {@link InputGenerator}
   */
  public float[][] outputs(int input) {
    float[][] copy = new float[outputs[input].length][];
    for (int i = 0; i < copy.length; i++) {
      copy[i] = outputs[input][i].clone();
    }
    return copy;
  }
}
