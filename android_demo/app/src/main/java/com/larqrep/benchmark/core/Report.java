package com.larqrep.benchmark.core;

import org.json.JSONException;
import org.json.JSONObject;

/** What a JSON report says of the device and the app, and the reports without a result. */
public final class Report {
  private final JSONObject device;
  private final String appVersion;
  private final String tfliteVersion;

  /**
   * Describes where a benchmark runs.
   *
   * @param device what is known of the device
   * @param appVersion version of the app
   * @param tfliteVersion version of TFLite; null if it could not be loaded
   */
  public Report(JSONObject device, String appVersion, String tfliteVersion) {
    this.device = device;
    this.appVersion = appVersion;
    this.tfliteVersion = tfliteVersion;
  }

  /** A report that nothing was measured: status "error" and the reason. */
  public JSONObject error(String message) {
    return withoutResult("error", message);
  }

  /** A report that the user has cancelled: status "cancelled". */
  public JSONObject cancelled() {
    return withoutResult("cancelled", null);
  }

  private JSONObject withoutResult(String status, String message) {
    try {
      return complete(new JSONObject().put("schema", 1).put("status", status).putOpt("error", message));
    } catch (JSONException error) {
      throw new AssertionError(error);
    }
  }

  /** Device and versions as lines of a table that begin with #. */
  String csvHeader() {
    return Csv.comment("device", device) + Csv.comment("app_version", appVersion)
        + Csv.comment("tflite_version", tfliteVersion);
  }

  /** Adds device and versions to a report. */
  JSONObject complete(JSONObject report) throws JSONException {
    return report.put("device", device).put("app_version", appVersion)
        .put("tflite_version", tfliteVersion == null ? JSONObject.NULL : tfliteVersion);
  }
}
