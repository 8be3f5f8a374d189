package com.larqrep.benchmark;

import android.os.Build;
import android.os.Bundle;
import android.os.Handler;
import android.os.Looper;
import android.text.TextUtils;
import android.view.Gravity;
import android.view.View;
import android.view.ViewGroup;
import android.widget.TextView;
import com.larqrep.runtime.LarqRepDelegate;
import java.io.IOException;
import java.util.Map;
import java.util.TreeMap;

/** What the device and the software on it are; without that, times say little. */
public final class DeviceActivity extends Screen {
  private static final String LICENCES = "licenses";
  private static final long REFRESH_MS = 2000;

  private final Handler handler = new Handler(Looper.getMainLooper());
  private final Runnable refresh = this::refreshHeat;
  private ViewGroup heat;

  @Override
  protected void onCreate(Bundle state) {
    super.onCreate(state);
    show(R.layout.device, DeviceActivity.class);
    ViewGroup device = card(R.string.device);
    line(device, getString(R.string.model), Build.MANUFACTURER + " " + Build.MODEL);
    line(device, getString(R.string.soc), known(Newer.soc()));
    line(device, getString(R.string.cores), frequencies());
    line(device, getString(R.string.abi), TextUtils.join(", ", Build.SUPPORTED_ABIS));
    long page = DeviceInfo.pageSize();
    line(device, getString(R.string.page_size), page == 0 ? known("") : getString(R.string.kibibytes, page / 1024));
    line(device, getString(R.string.android), getString(R.string.android_api, Build.VERSION.RELEASE,
        Build.VERSION.SDK_INT));
    line(device, getString(R.string.build), known(Build.DISPLAY));
    heat = card(R.string.heat);
    ViewGroup software = card(R.string.software);
    line(software, getString(R.string.app), DeviceInfo.appVersion(this));
    line(software, getString(R.string.delegate), LarqRepDelegate.VERSION);
    line(software, getString(R.string.implementations), known(TextUtils.join(", ", session.implementations())));
    line(software, getString(R.string.tflite), known(session.tfliteVersion()));
    if (session.warning() != null) {
      TextView warning = text(session.warning());
      warning.setTextColor(getColor(R.color.differs_text));
      software.addView(warning);
    }
    showLicences(card(R.string.licences));
  }

  private ViewGroup card(int name) {
    ViewGroup cards = findViewById(R.id.cards);
    ViewGroup card = (ViewGroup) getLayoutInflater().inflate(R.layout.card, cards, false);
    card.<TextView>findViewById(R.id.name).setText(name);
    cards.addView(card);
    return card;
  }

  private TextView text(CharSequence content) {
    TextView text = new TextView(this, null, 0, R.style.Text_Quiet);
    text.setText(content);
    return text;
  }

  private String known(String value) {
    return value == null || value.isEmpty() ? getString(R.string.not_known) : value;
  }

  /** How many cores have which highest frequency, the slowest first. */
  private String frequencies() {
    Map<Integer, Integer> counts = new TreeMap<>();
    for (int core = 0; core < DeviceInfo.cores(); core++) {
      int mhz = DeviceInfo.maxMhz(core);
      Integer count = counts.get(mhz);
      counts.put(mhz, count == null ? 1 : count + 1);
    }
    StringBuilder text = new StringBuilder();
    for (Map.Entry<Integer, Integer> group : counts.entrySet()) {
      text.append(text.length() == 0 ? "" : ", ").append(group.getKey() == 0
          ? getString(R.string.cores_hidden, group.getValue())
          : getString(R.string.cores_of, group.getValue(), Texts.digits(group.getKey() / 1000.0)));
    }
    return text.toString();
  }

  private void refreshHeat() {
    heat.removeViews(1, heat.getChildCount() - 1);
    double celsius = DeviceInfo.batteryCelsius(this);
    line(heat, getString(R.string.battery),
        Double.isNaN(celsius) ? known("") : getString(R.string.celsius, Texts.digits(celsius)));
    line(heat, getString(R.string.thermal_status), Texts.thermalStatus(this, Newer.thermalStatus(this)));
    float headroom = Newer.thermalHeadroom(this);
    line(heat, getString(R.string.headroom),
        Float.isNaN(headroom) ? known("") : getString(R.string.percent, String.valueOf(Math.round(headroom * 100))));
    handler.postDelayed(refresh, REFRESH_MS);
  }

  @Override
  protected void onStart() {
    super.onStart();
    refreshHeat();
  }

  @Override
  protected void onStop() {
    handler.removeCallbacks(refresh);
    super.onStop();
  }

  /** The name of each licence; a touch shows or hides its text. */
  private void showLicences(ViewGroup card) {
    try {
      for (String name : getAssets().list(LICENCES)) {
        TextView licence = text("");
        licence.setVisibility(View.GONE);
        TextView title = new TextView(this, null, 0, R.style.Text);
        title.setText(name.replaceAll("\\.txt$", ""));
        title.setGravity(Gravity.CENTER_VERTICAL);
        title.setTextColor(getColor(R.color.accent));
        title.setMinHeight(pixels(R.dimen.touch));
        title.setOnClickListener(view -> {
          boolean hidden = licence.getVisibility() == View.GONE;
          licence.setText(hidden ? read(LICENCES + "/" + name) : "");
          licence.setVisibility(hidden ? View.VISIBLE : View.GONE);
        });
        card.addView(title);
        card.addView(licence);
      }
    } catch (IOException error) {
      card.addView(text(Texts.of(error)));
    }
  }

  private String read(String asset) {
    try {
      return Files.text(getAssets().open(asset));
    } catch (IOException error) {
      return Texts.of(error);
    }
  }
}
