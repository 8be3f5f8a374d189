package com.larqrep.benchmark;

import android.content.ContentProvider;
import android.content.ContentValues;
import android.content.Context;
import android.database.Cursor;
import android.database.MatrixCursor;
import android.net.Uri;
import android.os.ParcelFileDescriptor;
import android.provider.OpenableColumns;
import java.io.File;
import java.io.FileNotFoundException;

/** Lends one file in the cache to the camera app, which writes its picture there. */
public final class PictureProvider extends ContentProvider {
  /** The file's address. */
  static final Uri PICTURE = Uri.parse("content://com.larqrep.benchmark.picture/camera.jpg");

  /** The file itself. */
  static File file(Context context) {
    return new File(context.getCacheDir(), "camera.jpg");
  }

  @Override
  public boolean onCreate() {
    return true;
  }

  @Override
  public ParcelFileDescriptor openFile(Uri uri, String mode) throws FileNotFoundException {
    if (!PICTURE.equals(uri)) {
      throw new FileNotFoundException(uri.toString());
    }
    return ParcelFileDescriptor.open(file(getContext()), ParcelFileDescriptor.parseMode(mode));
  }

  @Override
  public String getType(Uri uri) {
    return "image/jpeg";
  }

  @Override
  public Cursor query(Uri uri, String[] columns, String selection, String[] arguments, String order) {
    MatrixCursor cursor = new MatrixCursor(new String[] {OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE});
    cursor.addRow(new Object[] {PICTURE.getLastPathSegment(), file(getContext()).length()});
    return cursor;
  }

  @Override
  public Uri insert(Uri uri, ContentValues values) {
    throw new UnsupportedOperationException("There is one file only: " + PICTURE);
  }

  @Override
  public int delete(Uri uri, String selection, String[] arguments) {
    return 0;
  }

  @Override
  public int update(Uri uri, ContentValues values, String selection, String[] arguments) {
    return 0;
  }
}
