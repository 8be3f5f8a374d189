package com.larqrep.benchmark.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import org.junit.Test;

/** Options that lce-run does not have, quotes and messages; tests/test_core.py compares the others with lce-run. */
public class OptionsTest {
  private static String refusal(String arguments) {
    return assertThrows(OptionException.class, () -> Options.parse(arguments)).getMessage();
  }

  @Test
  public void hasLceRunsDefaults() {
    for (String nothing : new String[] {null, "", "  \t\n"}) {
      Options options = Options.parse(nothing);
      assertNull(options.model);
      assertNull(options.implementation);
      assertNull(options.output);
      assertEquals("1 5 50 5 true false", options.numThreads + " " + options.warmupRuns + " " + options.numRuns + " "
          + options.top + " " + options.fuse + " " + options.compare);
    }
  }

  @Test
  public void keepsBlanksWithinQuotes() {
    assertEquals("my net.tflite", Options.parse("--model=\"my net.tflite\"").model);
    assertEquals("my net.tflite", Options.parse("--model 'my net.tflite' --compare").model);
    assertEquals("it's", Options.parse("--model=\"it's\"").model);
    assertEquals("C:\\a", Options.parse("--model=C:\\a").model);
    assertTrue(refusal("--model='x").contains("an opening ' without a closing one"));
  }

  @Test
  public void suggestsTheNameThatWasMeant() {
    assertTrue(refusal("--num_thread=2").startsWith("Unknown option --num_thread. Did you mean --num_threads?"));
    assertTrue(refusal("--NUM_RUNS=2").contains("Did you mean --num_runs?"));
    assertTrue(refusal("--image=x.jpg").startsWith("Unknown option --image. The options are --model, "));
    assertTrue(refusal("ResNet20").startsWith("Unknown option ResNet20."));
  }

  @Test
  public void wantsAPlainNameForTheOutput() {
    assertEquals("größe 1.json", Options.parse("--output='größe 1.json'").output);
    for (String wrong : new String[] {"a/b", "/sdcard/r.json", ".", "..", "''", "'a\nb'",
        new String(new char[101]).replace("\0", "ß")}) {
      assertTrue(wrong, refusal("--output=" + wrong).startsWith("--output should be a plain file name"));
    }
  }

  @Test
  public void boundsNumbers() {
    assertEquals("--num_threads should be at most 64, found 65.", refusal("--num_threads=65"));
    assertEquals("--num_runs should be at most 100000, found 100001.", refusal("--num_runs=100001"));
    assertEquals("--num_runs should be a whole number, found '99999999999'.", refusal("--num_runs=99999999999"));
    assertEquals("--num_runs needs a value: --num_runs=VALUE.", refusal("--num_runs"));
    assertEquals("--compare takes no value, found '1'.", refusal("--compare=1"));
    assertEquals("--num_threads has no effect with --compare, which tries several: leave it out.",
        refusal("--num_threads=2 --compare"));
    assertTrue(refusal("--compare --implementation portable").startsWith("--implementation has no effect"));
    assertEquals("--top should be at least 0, found -1.",
        assertThrows(OptionException.class, () -> new Options.Builder().setTop(-1).build()).getMessage());
  }

  @Test
  public void buildsOnOtherOptions() {
    Options parsed = Options.parse("--model=a --num_threads=2 --warmup_runs=3 --num_runs=4 --top=6 --implementation=x "
        + "--no_fuse --output=o --random --json");
    Options options = new Options.Builder(parsed).setCompare(true).build();
    Options same = new Options.Builder(options).build();
    assertEquals("a 2 3 4 6 x false o true", same.model + " " + same.numThreads + " " + same.warmupRuns + " "
        + same.numRuns + " " + same.top + " " + same.implementation + " " + same.fuse + " " + same.output + " "
        + same.compare);
  }
}
