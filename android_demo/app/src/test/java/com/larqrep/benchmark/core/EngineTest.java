package com.larqrep.benchmark.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import org.json.JSONObject;
import org.junit.Test;

/** What an engine says where no native library can be loaded, as in the machine of these tests. */
public class EngineTest {
  /** A file of one graph without tensors. */
  private static ByteBuffer smallest() {
    ByteBuffer content = ByteBuffer.allocate(48).order(ByteOrder.LITTLE_ENDIAN);
    content.putInt(20).put("TFL3".getBytes(StandardCharsets.US_ASCII));
    content.putShort((short) 10).putShort((short) 8); // The model's vtable: only field 2, the graphs.
    content.putShort((short) 0).putShort((short) 0).putShort((short) 4).putShort((short) 0);
    content.putInt(12).putInt(4); // The model, 12 bytes behind its vtable.
    content.putInt(1).putInt(8); // A vector of one graph.
    content.putShort((short) 4).putShort((short) 4).putInt(4); // Its vtable and table.
    content.rewind();
    return content;
  }

  private static EngineException refusal(ByteBuffer content) {
    ModelFile file = new ModelFile("net", "net.tflite", content);
    return assertThrows(EngineException.class, () -> new Engine(file, Options.parse(""), "Pages have 16 KiB."));
  }

  @Test
  public void saysWhichLibraryCannotBeLoadedAndTheHint() {
    String message = refusal(smallest()).getMessage();
    assertTrue(message, message.startsWith("A native library of the app cannot be loaded: "));
    assertTrue(message, message.contains("larq_rep"));
    assertTrue(message, message.endsWith(" Pages have 16 KiB."));
  }

  @Test
  public void refusesADamagedFileBeforeItLoadsALibrary() {
    ByteBuffer cut = smallest();
    cut.limit(40);
    assertEquals("net.tflite is damaged or cut off: of its 40 bytes some point to places outside. Copy or convert it "
        + "again.", refusal(cut).getMessage());
  }

  @Test
  public void refusesWhatIsNoNetwork() {
    String message = refusal(ByteBuffer.wrap("PK and other".getBytes(StandardCharsets.US_ASCII))).getMessage();
    assertTrue(message, message.startsWith("net.tflite is not a .tflite file: expected TFL3 at byte 4."));
    assertTrue(refusal(ByteBuffer.allocate(0)).getMessage().startsWith("net.tflite is not a .tflite file"));
  }

  @Test
  public void readsAPartOfABuffer() {
    ByteBuffer longer = ByteBuffer.allocate(100);
    longer.position(16);
    longer.put(smallest()).flip();
    assertTrue(!ModelFile.isFlatbuffer(longer));
    longer.position(16);
    assertTrue(ModelFile.isFlatbuffer(longer));
    ModelFile file = new ModelFile("net", "net.tflite", longer);
    assertEquals(null, file.fault());
    assertEquals(48, file.bytes());
    assertEquals(0, file.content().position());
    assertTrue(file.content().isDirect());
    assertEquals(new JSONObject().toString(), file.metadata().toString());
  }
}
