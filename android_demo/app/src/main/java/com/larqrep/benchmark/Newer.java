package com.larqrep.benchmark;

import android.annotation.TargetApi;
import android.content.Context;
import android.os.Build;
import android.os.PowerManager;

/** The only class with calls beyond API level 24; each stands behind a check of the level. */
@TargetApi(34)
final class Newer {
  /** {@link #thermalStatus} of a device that does not tell. */
  static final int UNKNOWN = -1;

  private Newer() {}

  /** The system on a chip, from API 31 on; before, the name of the board. */
  static String soc() {
    boolean told = Build.VERSION.SDK_INT >= 31 && !Build.UNKNOWN.equals(Build.SOC_MODEL);
    return told ? Build.SOC_MANUFACTURER + " " + Build.SOC_MODEL : Build.HARDWARE;
  }

  /** {@code PowerManager.THERMAL_STATUS_*}, from API 29 on; 0 is none, that is cool. */
  static int thermalStatus(Context context) {
    PowerManager power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
    return Build.VERSION.SDK_INT >= 29 && power != null ? power.getCurrentThermalStatus() : UNKNOWN;
  }

  /** Heat now as a share of that at which the device throttles, from API 30 on; NaN where it does not tell. */
  static float thermalHeadroom(Context context) {
    PowerManager power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
    return Build.VERSION.SDK_INT >= 30 && power != null ? finite(power.getThermalHeadroom(0)) : Float.NaN;
  }

  private static float finite(float value) {
    return Float.isInfinite(value) ? Float.NaN : value;
  }
}
