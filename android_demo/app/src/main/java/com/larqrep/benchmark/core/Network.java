package com.larqrep.benchmark.core;

import org.json.JSONException;
import org.json.JSONObject;

/** A network that the app brings along. */
public final class Network {
  public final String name;
  /** Name of its file among the assets. */
  public final String file;
  /** Name of the file of its reference outputs among the assets. */
  public final String reference;
  /** Size of the file. */
  public final long bytes;
  /** Multiplications and additions of one run; 0 if they are not known. */
  public final long macs;
  /** Those of them that are binary. */
  public final long binaryMacs;
  /** Whether it has been trained; otherwise its answers mean nothing. */
  public final boolean trained;
  /** What it was trained on; empty if nothing is known. */
  public final String data;
  /** What else there is to say; may be empty. */
  public final String note;

  Network(JSONObject object) throws JSONException {
    name = object.getString("name");
    file = object.getString("file");
    reference = object.getString("reference");
    bytes = object.getLong("bytes");
    macs = object.optLong("macs");
    binaryMacs = object.optLong("binary_macs");
    trained = object.getBoolean("trained");
    data = object.isNull("data") ? "" : object.optString("data");
    note = object.isNull("note") ? "" : object.optString("note");
  }
}
