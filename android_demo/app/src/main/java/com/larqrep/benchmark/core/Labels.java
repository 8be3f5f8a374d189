package com.larqrep.benchmark.core;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.LinkedHashSet;
import java.util.LinkedList;
import java.util.List;
import java.util.PriorityQueue;
import java.util.Set;
import org.json.JSONException;
import org.json.JSONObject;

/** The names of the classes of a file, if it knows them. */
public final class Labels {
  private final String[] names;

  private Labels(String[] names) {
    this.names = names;
  }

  /** A number of an output with its place and, if it is known, the name of its class. */
  public static final class Answer {
    public final int index;
    public final float value;
    /** Name of the class; null if it is not known. */
    public final String name;

    Answer(int index, float value, String name) {
      this.index = index;
      this.value = value;
      this.name = name;
    }

    JSONObject toJson() {
      try {
        return new JSONObject().put("index", index).put("value", Json.number(value)).putOpt("class", name);
      } catch (JSONException error) {
        throw new AssertionError(error);
      }
    }
  }

  /**
   * The names in the metadata of a file.
   *
   * @param metadata the file's, as {@link ModelFile#metadata}
   * @throws IllegalArgumentException if they are no list of names, or no output has as many numbers for an image
   */
  public static Labels of(JSONObject metadata, List<TensorInfo> inputs, List<TensorInfo> outputs) {
    String[] names = new Metadata(metadata, "").names("classes");
    if (names == null || names.length == 0) {
      return new Labels(null);
    }
    int images = images(inputs);
    List<String> counts = new ArrayList<>();
    Set<Integer> right = new LinkedHashSet<>();
    for (TensorInfo output : outputs) {
      int[] shape = ofOne(output.shape(), images);
      int count = count(shape);
      counts.add(String.valueOf(count));
      right.add(count);
      if (shape.length > 0) {
        right.add(shape[shape.length - 1]); // A map of scores has names for its last axis.
      }
    }
    if (!right.contains(names.length)) {
      throw new IllegalArgumentException("The metadata should name " + TextFormat.list(counts, " or ")
          + " classes, one for each number of an output, found " + names.length + " names. Convert the file again.");
    }
    return new Labels(names);
  }

  /** Whether the names are known. */
  public boolean isKnown() {
    return names != null;
  }

  /** How many images the first input takes. */
  static int images(List<TensorInfo> inputs) {
    return inputs.isEmpty() || inputs.get(0).shape().length != 4 ? 1 : inputs.get(0).shape()[0];
  }

  /** The shape of an output for one of a batch of images. */
  private static int[] ofOne(int[] shape, int images) {
    return shape.length > 0 && shape[0] == images ? Arrays.copyOfRange(shape, 1, shape.length) : shape;
  }

  private static int count(int[] shape) {
    int count = 1;
    for (int side : shape) {
      count *= side;
    }
    return count;
  }

  /**
   * The largest numbers of an output, for a batch of images those of the first; the first of equal ones comes first,
   * and NaN last.
   *
   * @param values all numbers of the output
   */
  public List<Answer> largest(float[] values, TensorInfo output, List<TensorInfo> inputs, int count) {
    int length = Math.min(values.length, count(ofOne(output.shape(), images(inputs))));
    // In ascending order of -x, where NaN is the largest and 0 equals -0. The queue has the last of the best in front.
    Comparator<Integer> order = (a, b) -> Double.compare(0.0 - values[a], 0.0 - values[b]);
    order = order.thenComparing(Comparator.<Integer>naturalOrder());
    PriorityQueue<Integer> best = new PriorityQueue<>(order.reversed());
    for (int i = 0; i < length; i++) {
      best.add(i);
      if (best.size() > count) {
        best.remove();
      }
    }
    LinkedList<Answer> answers = new LinkedList<>();
    while (!best.isEmpty()) {
      int place = best.remove();
      String name = names != null && names.length == length ? names[place] : null;
      answers.addFirst(new Answer(place, values[place], name));
    }
    return answers;
  }
}
