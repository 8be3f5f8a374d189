package com.larqrep.benchmark.core;

/** Lines of a table with commas (RFC 4180), and of comments before it. */
final class Csv {
  private Csv() {}

  static String line(Object... values) {
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < values.length; i++) {
      String value = String.valueOf(values[i]);
      boolean quoted = value.matches("(?s).*[\",\r\n].*");
      text.append(i == 0 ? "" : ",").append(quoted ? '"' + value.replace("\"", "\"\"") + '"' : value);
    }
    return text.append("\n").toString();
  }

  static String comment(String name, Object value) {
    return "# " + name + ": " + String.valueOf(value).replaceAll("[\r\n]+", " ") + "\n";
  }
}
