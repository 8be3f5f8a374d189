package com.larqrep.benchmark;

import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import android.content.Intent;
import android.os.BatteryManager;
import android.os.Build;
import android.os.Looper;
import android.view.ViewGroup;
import android.widget.TextView;
import com.larqrep.runtime.LarqRepDelegate;
import java.time.Duration;
import org.junit.Test;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.Shadows;

/** What is said of the device. */
public final class DeviceActivityTest extends ScreenTest {
  @Test
  public void deviceAndSoftwareAreNamed() {
    String texts = Stage.texts(open(DeviceActivity.class).get().findViewById(R.id.cards));
    for (String line : new String[] {"Model\n" + Build.MANUFACTURER + " " + Build.MODEL, "Chip\n", "Cores\n", "ABI\n",
        "Memory page\n", "Android\n15 (API 35)", "This app\n0.2.0", "larq-rep delegate\n" + LarqRepDelegate.VERSION,
        "Instruction sets\navx2, popcnt, portable", "TensorFlow Lite\n2.16.1", "Throttling\nnone"}) {
      assertTrue(line + " in " + texts, texts.contains(line));
    }
  }

  @Test
  @SuppressWarnings("deprecation") // The battery's own message is sticky.
  public void heatIsReadAgain() {
    DeviceActivity activity = open(DeviceActivity.class).get();
    for (int tenths : new int[] {312, 405}) {
      RuntimeEnvironment.getApplication().sendStickyBroadcast(
          new Intent(Intent.ACTION_BATTERY_CHANGED).putExtra(BatteryManager.EXTRA_TEMPERATURE, tenths));
      Shadows.shadowOf(Looper.getMainLooper()).idleFor(Duration.ofSeconds(3));
      String texts = Stage.texts(activity.findViewById(R.id.cards));
      assertTrue(texts, texts.contains("Battery\n" + tenths / 10.0 + " °C"));
    }
  }

  @Test
  public void whatCannotBeLoadedIsNotKnown() {
    machine.loads = false;
    machine.page = 16384;
    String texts = Stage.texts(open(DeviceActivity.class).get().findViewById(R.id.cards));
    assertTrue(texts, texts.contains("TensorFlow Lite\nnot known"));
    assertTrue(texts, texts.contains("Instruction sets\nnot known"));
    assertTrue(texts, texts.contains("memory pages of 16 KiB"));
  }

  @Test
  public void licencesAreShownAndHidden() {
    DeviceActivity activity = open(DeviceActivity.class).get();
    ViewGroup cards = activity.findViewById(R.id.cards);
    ViewGroup licences = (ViewGroup) cards.getChildAt(cards.getChildCount() - 1);
    for (String name : new String[] {"larq-rep", "tensorflow-lite"}) {
      TextView title = null;
      for (int i = 0; i < licences.getChildCount(); i++) {
        TextView text = (TextView) licences.getChildAt(i);
        title = text.getText().toString().equals(name) ? text : title;
      }
      title.performClick();
      assertTrue(Stage.texts(licences).contains("Apache License"));
      title.performClick();
      assertFalse(Stage.texts(licences).contains("Apache License"));
    }
  }
}
