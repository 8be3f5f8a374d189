package com.larqrep.benchmark;

import android.content.Context;
import android.content.res.AssetFileDescriptor;
import android.database.Cursor;
import android.net.Uri;
import android.provider.OpenableColumns;
import android.util.Log;
import com.larqrep.benchmark.core.Catalog;
import com.larqrep.benchmark.core.EngineException;
import com.larqrep.benchmark.core.ModelFile;
import com.larqrep.benchmark.core.Network;
import com.larqrep.benchmark.core.Reference;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;

/** A network and where it comes from: the assets, or a file. */
final class Source {
  private static final String SUFFIX = ".tflite";
  private static final String PART = ".part";
  private static final String REFERENCE = ".reference.json";

  /** Its name for people. */
  final String name;
  /** Its name among the options: that of a bundled network, or the path of a file. */
  final String model;
  /** What is known of a bundled network; null for a file. */
  final Network network;
  private final File file;

  /** A bundled network. */
  Source(Network network) {
    this.name = network.name;
    this.model = network.name;
    this.network = network;
    this.file = null;
  }

  /** A file. */
  Source(File file) {
    this(withoutSuffix(file.getName()), file);
  }

  private Source(String name, File file) {
    this.name = name;
    this.model = file.getPath();
    this.network = null;
    this.file = file;
  }

  /** The same file under another name. */
  Source named(String other) {
    return new Source(other, file);
  }

  /**
   * The network that {@code --model} names: a bundled one, or a path, if relative, from the app's external folder on.
   *
   * @throws com.larqrep.benchmark.core.OptionException if there is none
   */
  static Source find(Context context, Catalog catalog, String model) {
    Network network = catalog.find(model);
    if (network != null) {
      return new Source(network);
    }
    File file = new File(model);
    if (!file.isAbsolute()) {
      file = new File(context.getExternalFilesDir(null), model);
    }
    if (!file.isFile()) {
      throw catalog.unknown(model);
    }
    return new Source(file);
  }

  /**
   * Copies a file of another app into the cache.
   *
   * @throws EngineException if it cannot be read or is no network
   */
  static Source copy(Context context, Uri uri) throws EngineException {
    String name = nameOf(context, uri);
    File folder = new File(context.getCacheDir(), "opened");
    File file = new File(folder, name);
    File part = new File(folder, PART); // One of that name may be open, and stays if this one is no network.
    try {
      InputStream stream = context.getContentResolver().openInputStream(uri);
      if (stream == null || !folder.isDirectory() && !folder.mkdirs()) {
        throw new IOException(uri.toString());
      }
      Files.copy(stream, new FileOutputStream(part));
      String fault = new ModelFile(name, name, map(context, part)).fault();
      if (fault != null) {
        throw new EngineException(fault);
      }
      if (!part.renameTo(file)) {
        throw new IOException(file.getPath());
      }
      return new Source(file);
    } catch (IOException | RuntimeException error) { // The other app's code may throw anything.
      throw new EngineException(context.getString(R.string.cannot_read, name, Texts.of(error)), error);
    } finally {
      part.delete();
    }
  }

  private static String nameOf(Context context, Uri uri) {
    String name = uri.getLastPathSegment();
    String[] columns = {OpenableColumns.DISPLAY_NAME};
    try (Cursor cursor = context.getContentResolver().query(uri, columns, null, null, null)) {
      if (cursor != null && cursor.moveToFirst() && cursor.getString(0) != null) {
        name = cursor.getString(0);
      }
    } catch (RuntimeException error) {
      Log.w(Session.TAG, "An app does not tell the name of its file.", error);
    }
    // A name of another app may be a path.
    String plain = name == null ? "" : new File(name).getName();
    return plain.isEmpty() || plain.equals("..") || plain.equals(PART) ? "network.tflite" : plain;
  }

  private static String withoutSuffix(String name) {
    return name.endsWith(SUFFIX) ? name.substring(0, name.length() - SUFFIX.length()) : name;
  }

  /** Size of the file. */
  long bytes() {
    return network == null ? file.length() : network.bytes;
  }

  /** Maps the file into memory. */
  ModelFile load(Context context) throws EngineException {
    String place = network == null ? file.getName() : network.file;
    try {
      return new ModelFile(name, place, network == null ? map(context, file) : map(context, network.file));
    } catch (IOException error) {
      throw new EngineException(context.getString(R.string.cannot_read, place, Texts.of(error)), error);
    }
  }

  private static ByteBuffer map(Context context, File file) throws IOException {
    if (file.length() > Integer.MAX_VALUE) {
      throw new IOException(context.getString(R.string.file_too_large));
    }
    try (FileInputStream stream = new FileInputStream(file)) {
      return stream.getChannel().map(FileChannel.MapMode.READ_ONLY, 0, file.length());
    }
  }

  /** The packer stores networks uncompressed, so that they can be mapped. */
  private static ByteBuffer map(Context context, String asset) throws IOException {
    try (AssetFileDescriptor descriptor = context.getAssets().openFd(asset);
        FileInputStream stream = new FileInputStream(descriptor.getFileDescriptor())) {
      return stream.getChannel().map(FileChannel.MapMode.READ_ONLY, descriptor.getStartOffset(),
          descriptor.getLength());
    }
  }

  /** The outputs to compare with: for NAME.tflite those in NAME.reference.json beside it; null without such a file. */
  Reference reference(Context context) throws EngineException {
    File beside = file == null ? null : new File(file.getParentFile(), withoutSuffix(file.getName()) + REFERENCE);
    String place = beside == null ? network.reference : beside.getPath();
    if (beside != null && !beside.isFile()) {
      return null;
    }
    try {
      return Reference.parse(place,
          beside == null ? Files.text(context.getAssets().open(place)) : Files.text(beside));
    } catch (IOException error) {
      throw new EngineException(context.getString(R.string.cannot_read, place, Texts.of(error)), error);
    } catch (IllegalArgumentException error) {
      throw new EngineException(error.getMessage(), error);
    }
  }
}
