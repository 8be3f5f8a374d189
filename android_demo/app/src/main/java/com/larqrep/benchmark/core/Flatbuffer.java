package com.larqrep.benchmark.core;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;

/**
 * Follows the offsets of a flatbuffer.
 *
 * <p>Every method throws an {@link IndexOutOfBoundsException} or an {@link ArithmeticException} if something lies
 * outside of the buffer.
 *
 * @see <a href="https://flatbuffers.dev/internals/">FlatBuffers: Internals</a>
 */
final class Flatbuffer {
  private static final int[] NONE = {};

  private final ByteBuffer content;

  Flatbuffer(ByteBuffer content) {
    this.content = content.duplicate().order(ByteOrder.LITTLE_ENDIAN);
  }

  /** An index, if there are more than that many. */
  static int index(int index, int count) {
    if (index < 0 || index >= count) {
      throw new IndexOutOfBoundsException(index + " of " + count);
    }
    return index;
  }

  /** The place to which the offset at a position points. */
  int target(int position) {
    return Math.toIntExact(position + (content.getInt(position) & 0xFFFFFFFFL));
  }

  /** Position of a field of a table, which has to lie within the table; -1 if it is left out. */
  private int field(int table, int number, int size) {
    int vtable = Math.toIntExact((long) table - content.getInt(table));
    int entries = content.getShort(vtable) & 0xFFFF;
    int length = content.getShort(vtable + 2) & 0xFFFF;
    within(vtable, entries);
    within(table, length);
    if (4 + 2 * number + 2 > entries) {
      return -1;
    }
    int offset = content.getShort(vtable + 4 + 2 * number) & 0xFFFF;
    if (offset == 0) {
      return -1;
    }
    if (offset + size > length) {
      throw new IndexOutOfBoundsException("field " + number);
    }
    return table + offset;
  }

  /** Checks that a part lies within the buffer. */
  void within(long start, long length) {
    if (start < 0 || length < 0 || start > content.limit() - length) {
      throw new IndexOutOfBoundsException(start + " and " + length);
    }
  }

  /** The int32 or uint32 in a field. */
  int integer(int table, int number, int missing) {
    int field = field(table, number, 4);
    return field < 0 ? missing : content.getInt(field);
  }

  /** The int8 in a field. */
  int signedByte(int table, int number, int missing) {
    int field = field(table, number, 1);
    return field < 0 ? missing : content.get(field);
  }

  /** The uint64 in a field; 0 if it is left out. */
  long whole(int table, int number) {
    int field = field(table, number, 8);
    return field < 0 ? 0 : content.getLong(field);
  }

  /** Position of the table in a field; -1 if it is left out. */
  int table(int table, int number) {
    int field = field(table, number, 4);
    if (field < 0) {
      return -1;
    }
    int target = target(field);
    field(target, 0, 0); // Checks the table itself.
    return target;
  }

  /** Positions of the tables in a vector; none if the field is left out. */
  int[] tables(int table, int number) {
    int[] positions = vector(table, number, 4);
    for (int i = 0; i < positions.length; i++) {
      positions[i] = target(positions[i]);
      field(positions[i], 0, 0);
    }
    return positions;
  }

  /** The int32 of a vector. */
  int[] integers(int table, int number) {
    int[] positions = vector(table, number, 4);
    for (int i = 0; i < positions.length; i++) {
      positions[i] = content.getInt(positions[i]);
    }
    return positions;
  }

  /** Positions of the elements of a vector. */
  int[] vector(int table, int number, int size) {
    int field = field(table, number, 4);
    if (field < 0) {
      return NONE;
    }
    int start = target(field);
    long count = content.getInt(start) & 0xFFFFFFFFL;
    within(start + 4L, count * size);
    int[] positions = new int[(int) count];
    for (int i = 0; i < positions.length; i++) {
      positions[i] = start + 4 + i * size;
    }
    return positions;
  }

  /** The bytes in a field, as a part of the buffer; none if it is left out. */
  ByteBuffer bytes(int table, int number) {
    ByteBuffer bytes = content.duplicate();
    bytes.limit(0);
    int field = field(table, number, 4);
    if (field >= 0) {
      int start = target(field);
      long count = content.getInt(start) & 0xFFFFFFFFL;
      within(start + 4L, count);
      bytes.limit((int) (start + 4 + count));
      bytes.position(start + 4);
    }
    return bytes;
  }

  /** The text in a field. */
  String string(int table, int number) throws CharacterCodingException {
    return StandardCharsets.UTF_8.newDecoder().decode(bytes(table, number)).toString();
  }

  /** The text in a field, with a replacement for what is no UTF-8. */
  String letters(int table, int number) {
    return StandardCharsets.UTF_8.decode(bytes(table, number)).toString();
  }
}
