package com.larqrep.benchmark;

import android.content.Context;
import java.text.NumberFormat;

/** Numbers for people, in the language of the device. */
final class Texts {
  private Texts() {}

  /** A time of milliseconds with its unit, to three digits. */
  static String ms(Context context, double milliseconds) {
    return context.getString(R.string.ms, digits(milliseconds));
  }

  /** A number to three digits; whole if it is large. */
  static String digits(double value) {
    NumberFormat format = NumberFormat.getNumberInstance();
    double size = Math.abs(value);
    int decimals = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
    format.setMinimumFractionDigits(decimals);
    format.setMaximumFractionDigits(decimals);
    return format.format(value);
  }

  /** A small number such as a difference, to two digits, with an exponent if it needs one. */
  static String small(double value) {
    return value == 0 || Math.abs(value) >= 0.01 ? digits(value) : String.format((java.util.Locale) null, "%.1e", value);
  }

  /** A count with the unit thousand, million or billion. */
  static String count(Context context, long count) {
    if (count >= 1_000_000_000) {
      return context.getString(R.string.billion, digits(count / 1e9));
    }
    if (count >= 1_000_000) {
      return context.getString(R.string.million, digits(count / 1e6));
    }
    return context.getString(R.string.thousand, digits(count / 1e3));
  }

  /** Size of a file. */
  static String bytes(Context context, long bytes) {
    return bytes >= 1_000_000 ? context.getString(R.string.megabytes, digits(bytes / 1e6))
        : context.getString(R.string.kilobytes, digits(bytes / 1e3));
  }

  /** The name of a {@code PowerManager.THERMAL_STATUS_*}. */
  static String thermalStatus(Context context, int status) {
    String[] names = context.getResources().getStringArray(R.array.thermal_statuses);
    return status < 0 || status >= names.length ? context.getString(R.string.not_known) : names[status];
  }

  /** The message of an error, or its kind if it has none. */
  static String of(Throwable error) {
    return error.getMessage() == null ? error.toString() : error.getMessage();
  }
}
