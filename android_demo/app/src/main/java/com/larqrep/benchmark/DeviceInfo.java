package com.larqrep.benchmark;

import android.content.Context;
import android.content.Intent;
import android.content.IntentFilter;
import android.content.pm.PackageManager;
import android.os.BatteryManager;
import android.os.Build;
import android.system.Os;
import android.system.OsConstants;
import java.io.BufferedReader;
import java.io.FileReader;
import java.io.IOException;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/** What a device says of itself. What it does not say is missing. */
final class DeviceInfo {
  /** Page size for which TFLite's own library is built. */
  static final long TFLITE_PAGE = 4096;

  private DeviceInfo() {}

  /** Bytes of a page of memory; 0 if not known. */
  static long pageSize() {
    return Math.max(0, Os.sysconf(OsConstants._SC_PAGESIZE));
  }

  /** Processor cores that are configured, also those that sleep. */
  static int cores() {
    long configured = Os.sysconf(OsConstants._SC_NPROCESSORS_CONF);
    return (int) Math.max(configured, Runtime.getRuntime().availableProcessors());
  }

  /** Highest frequency of a core in MHz; 0 if the system hides it. */
  static int maxMhz(int core) {
    String file = "/sys/devices/system/cpu/cpu" + core + "/cpufreq/cpuinfo_max_freq";
    try (BufferedReader reader = new BufferedReader(new FileReader(file))) {
      return Integer.parseInt(reader.readLine().trim()) / 1000;
    } catch (IOException | RuntimeException hidden) {
      return 0;
    }
  }

  /** Temperature of the battery in degrees Celsius; NaN if not known. */
  static double batteryCelsius(Context context) {
    Intent battery = context.registerReceiver(null, new IntentFilter(Intent.ACTION_BATTERY_CHANGED));
    int tenths = battery == null ? Integer.MIN_VALUE
        : battery.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, Integer.MIN_VALUE);
    return tenths == Integer.MIN_VALUE ? Double.NaN : tenths / 10.0;
  }

  /** Version of this app. */
  static String appVersion(Context context) {
    try {
      return context.getPackageManager().getPackageInfo(context.getPackageName(), 0).versionName;
    } catch (PackageManager.NameNotFoundException error) {
      throw new AssertionError(error);
    }
  }

  /** The device for a report. */
  static JSONObject json() {
    JSONArray frequencies = new JSONArray();
    for (int core = 0; core < cores(); core++) {
      frequencies.put(maxMhz(core));
    }
    try {
      return new JSONObject()
          .put("manufacturer", Build.MANUFACTURER)
          .put("model", Build.MODEL)
          .put("soc", Newer.soc())
          .put("abis", new JSONArray(Build.SUPPORTED_ABIS))
          .put("cores", cores())
          .put("max_mhz", frequencies)
          .put("page_size", pageSize())
          .put("android", Build.VERSION.RELEASE)
          .put("api", Build.VERSION.SDK_INT)
          .put("build", Build.DISPLAY);
    } catch (JSONException error) {
      throw new AssertionError(error);
    }
  }

  /** Heat at this moment for a report: battery's temperature, thermal status (0 is none), headroom. */
  static JSONObject heat(Context context) {
    JSONObject heat = new JSONObject();
    double celsius = batteryCelsius(context);
    int status = Newer.thermalStatus(context);
    float headroom = Newer.thermalHeadroom(context);
    try {
      heat.put("battery_celsius", Double.isNaN(celsius) ? JSONObject.NULL : (Object) celsius);
      heat.put("status", status == Newer.UNKNOWN ? JSONObject.NULL : (Object) status);
      heat.put("headroom", Float.isNaN(headroom) ? JSONObject.NULL : (Object) (double) headroom);
    } catch (JSONException error) {
      throw new AssertionError(error);
    }
    return heat;
  }
}
