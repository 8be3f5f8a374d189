package com.larqrep.benchmark.core;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/** The networks that the app brings along, as networks.json among the assets lists them. */
public final class Catalog {
  private final List<Network> networks;

  private Catalog(List<Network> networks) {
    this.networks = Collections.unmodifiableList(networks);
  }

  /**
   * Reads networks.json.
   *
   * @throws IllegalArgumentException if it is damaged or lists nothing
   */
  public static Catalog parse(String json) {
    try {
      JSONObject object = new JSONObject(json);
      JSONArray array = object.getJSONArray("networks");
      if (object.getInt("schema") != 1 || array.length() == 0) {
        throw new IllegalArgumentException("networks.json has schema " + object.getInt("schema") + " and "
            + array.length() + " networks, expected 1 and at least one. Build the app again.");
      }
      List<Network> networks = new ArrayList<>();
      for (int i = 0; i < array.length(); i++) {
        networks.add(new Network(array.getJSONObject(i)));
      }
      return new Catalog(networks);
    } catch (JSONException error) {
      throw new IllegalArgumentException(
          "networks.json is damaged: " + error.getMessage() + ". Build the app again.", error);
    }
  }

  /** All of them; at least one. */
  public List<Network> networks() {
    return networks;
  }

  /** The one of that name, in capital or small letters; null if there is none. The first for null. */
  public Network find(String name) {
    if (name == null) {
      return networks.get(0);
    }
    for (Network network : networks) {
      if (network.name.equalsIgnoreCase(name)) {
        return network;
      }
    }
    return null;
  }

  /** What to say of a model that is neither one of them nor a file. */
  public OptionException unknown(String model) {
    List<String> names = new ArrayList<>();
    for (Network network : networks) {
      names.add(network.name);
    }
    return new OptionException("--model should be " + TextFormat.list(names, ", ") + " or the path of a file that the "
        + "app can read, found '" + model + "'." + Suggestion.of(model, names));
  }
}
