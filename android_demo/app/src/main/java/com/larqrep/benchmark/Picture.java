package com.larqrep.benchmark;

import android.content.Context;
import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.media.ExifInterface;
import android.net.Uri;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;

/** A picture's pixels, upright. */
final class Picture {
  /** Most pixels that are kept; with their copy they take an eighth of the memory of an app. */
  private static final long MOST = Math.min(16L << 20, Runtime.getRuntime().maxMemory() / 64);

  final int[] argb;
  final int width;
  final int height;
  /** 1 if all pixels were read, 2 if every second one of each row and column, and so on. */
  final int reduction;

  private Picture(int[] argb, int width, int height, int reduction) {
    this.argb = argb;
    this.width = width;
    this.height = height;
    this.reduction = reduction;
  }

  /** An upright bitmap. */
  static Picture of(Bitmap bitmap) {
    int[] argb = new int[bitmap.getWidth() * bitmap.getHeight()];
    bitmap.getPixels(argb, 0, bitmap.getWidth(), 0, 0, bitmap.getWidth(), bitmap.getHeight());
    return new Picture(argb, bitmap.getWidth(), bitmap.getHeight(), 1);
  }

  /**
   * Reads a picture and turns it as its EXIF data say.
   *
   * @throws IOException if it is not to be had or is no picture
   */
  static Picture read(Context context, Uri uri) throws IOException {
    BitmapFactory.Options options = new BitmapFactory.Options();
    options.inJustDecodeBounds = true;
    decode(context, uri, options);
    if (options.outWidth <= 0 || options.outHeight <= 0) {
      throw new IOException(context.getString(R.string.no_picture));
    }
    int reduction = 1;
    while ((long) (options.outWidth / reduction) * (options.outHeight / reduction) > MOST) {
      reduction *= 2;
    }
    options.inJustDecodeBounds = false;
    options.inSampleSize = reduction;
    options.inPreferredConfig = Bitmap.Config.ARGB_8888;
    options.inPremultiplied = false; // Else the colours below a transparent pixel are lost.
    Bitmap bitmap = decode(context, uri, options);
    if (bitmap == null) {
      throw new IOException(context.getString(R.string.damaged_picture));
    }
    Picture picture = of(bitmap);
    bitmap.recycle();
    try (InputStream stream = open(context, uri)) {
      int orientation = new ExifInterface(stream).getAttributeInt(ExifInterface.TAG_ORIENTATION, 1);
      return upright(picture.argb, picture.width, picture.height, orientation, reduction);
    }
  }

  private static Bitmap decode(Context context, Uri uri, BitmapFactory.Options options) throws IOException {
    try (InputStream stream = open(context, uri)) {
      return BitmapFactory.decodeStream(stream, null, options);
    }
  }

  private static InputStream open(Context context, Uri uri) throws IOException {
    InputStream stream;
    try {
      stream = context.getContentResolver().openInputStream(uri);
    } catch (SecurityException error) {
      throw new IOException(error.getMessage(), error);
    }
    if (stream == null) {
      throw new FileNotFoundException(uri.toString());
    }
    return stream;
  }

  /** Turns pixels by the EXIF orientation, 1 to 8; any other leaves them. */
  private static Picture upright(int[] argb, int width, int height, int orientation, int reduction) {
    if (orientation < 2 || orientation > 8) {
      return new Picture(argb, width, height, reduction);
    }
    boolean swapped = orientation >= 5;
    // Where the upright picture's first row and column begin in the stored one.
    boolean fromRight = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    boolean fromBottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    int newWidth = swapped ? height : width;
    int newHeight = swapped ? width : height;
    int[] turned = new int[argb.length];
    for (int y = 0; y < newHeight; y++) {
      for (int x = 0; x < newWidth; x++) {
        int column = swapped ? y : x;
        int row = swapped ? x : y;
        column = fromRight ? width - 1 - column : column;
        row = fromBottom ? height - 1 - row : row;
        turned[y * newWidth + x] = argb[row * width + column];
      }
    }
    return new Picture(turned, newWidth, newHeight, reduction);
  }

  /** A bitmap to look at, of at most as many pixels on a side. */
  Bitmap preview(int side) {
    int step = Math.max(1, Math.max(width, height) / side);
    int newWidth = Math.max(1, width / step);
    int newHeight = Math.max(1, height / step);
    int[] pixels = new int[newWidth * newHeight];
    for (int i = 0; i < pixels.length; i++) {
      pixels[i] = argb[i / newWidth * step * width + i % newWidth * step] | 0xFF000000;
    }
    return Bitmap.createBitmap(pixels, newWidth, newHeight, Bitmap.Config.ARGB_8888);
  }
}
