package com.larqrep.benchmark.core;

import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/** The outputs of the desktop runtime for the input of {@link InputGenerator}, as tools/assets.py writes them. */
public final class Reference {
  private final String runtime;
  private final float[][] outputs;

  private Reference(String runtime, float[][] outputs) {
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
      float[][] outputs = new float[array.length()][];
      for (int i = 0; i < outputs.length; i++) {
        JSONArray values = array.getJSONObject(i).getJSONArray("values");
        outputs[i] = new float[values.length()];
        for (int j = 0; j < outputs[i].length; j++) {
          outputs[i][j] = (float) values.getDouble(j);
        }
      }
      return new Reference(object.optString("runtime"), outputs);
    } catch (JSONException error) {
      throw new IllegalArgumentException(file + " is damaged: " + error.getMessage() + ". Make it again.", error);
    }
  }

  /** The runtime and version that computed it. */
  public String runtime() {
    return runtime;
  }

  /** All numbers of each output. */
  public float[][] outputs() {
    float[][] copy = new float[outputs.length][];
    for (int i = 0; i < copy.length; i++) {
      copy[i] = outputs[i].clone();
    }
    return copy;
  }
}
