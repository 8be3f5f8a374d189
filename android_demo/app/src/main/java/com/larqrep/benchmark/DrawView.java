package com.larqrep.benchmark;

import android.annotation.SuppressLint;
import android.content.Context;
import android.graphics.Canvas;
import android.graphics.Paint;
import android.util.AttributeSet;
import android.view.MotionEvent;
import android.view.View;
import java.util.ArrayList;
import java.util.List;

/** A black square on which one finger draws in white. */
public final class DrawView extends View {
  /** Side of the square as a share of the screen's height, so that the answer is seen beside it or below it. */
  private static final float SHARE = 0.45f;
  /** Width of the pen as a share of the side. */
  private static final float PEN = 0.08f;

  private final Paint pen = new Paint(Paint.ANTI_ALIAS_FLAG);
  private final Paint paper = new Paint();
  private final List<float[]> lines = new ArrayList<>();
  private Runnable listener = () -> {};
  private float lastX;
  private float lastY;

  public DrawView(Context context, AttributeSet attributes) {
    super(context, attributes);
    pen.setColor(0xFFFFFFFF);
    pen.setStrokeCap(Paint.Cap.ROUND);
    paper.setColor(0xFF000000);
  }

  /** Calls back after each change by a finger. */
  void setListener(Runnable changed) {
    listener = changed;
  }

  /** Straight lines {@code x0, y0, x1, y1} with the side of the square as unit. */
  List<float[]> lines() {
    return lines;
  }

  /** Replaces the drawing. */
  void setLines(List<float[]> replacement) {
    List<float[]> copy = new ArrayList<>(replacement);
    lines.clear();
    lines.addAll(copy);
    invalidate();
  }

  @Override
  protected void onMeasure(int width, int height) {
    int most = Math.round(getResources().getDisplayMetrics().heightPixels * SHARE);
    setMeasuredDimension(MeasureSpec.getSize(width), Math.min(MeasureSpec.getSize(width), most));
  }

  @Override
  protected void onDraw(Canvas canvas) {
    float side = getHeight();
    float left = (getWidth() - side) / 2;
    canvas.drawRect(left, 0, left + side, side, paper);
    pen.setStrokeWidth(side * PEN);
    canvas.clipRect(left, 0, left + side, side);
    for (float[] line : lines) {
      canvas.drawLine(left + line[0] * side, line[1] * side, left + line[2] * side, line[3] * side, pen);
    }
  }

  @Override
  @SuppressLint("ClickableViewAccessibility") // A drawing has no click.
  public boolean onTouchEvent(MotionEvent event) {
    float left = (getWidth() - getHeight()) / 2f;
    switch (event.getActionMasked()) {
      case MotionEvent.ACTION_DOWN:
        getParent().requestDisallowInterceptTouchEvent(true); // Else the screen scrolls.
        lastX = (event.getX() - left) / getHeight();
        lastY = event.getY() / getHeight();
        lineTo(lastX, lastY);
        break;
      case MotionEvent.ACTION_MOVE:
        for (int i = 0; i < event.getHistorySize(); i++) {
          lineTo((event.getHistoricalX(i) - left) / getHeight(), event.getHistoricalY(i) / getHeight());
        }
        lineTo((event.getX() - left) / getHeight(), event.getY() / getHeight());
        break;
      default:
        return true;
    }
    invalidate();
    listener.run();
    return true;
  }

  /** Points beyond the square are held at its edge. */
  private void lineTo(float x, float y) {
    float toX = Math.max(0, Math.min(1, x));
    float toY = Math.max(0, Math.min(1, y));
    lines.add(new float[] {lastX, lastY, toX, toY});
    lastX = toX;
    lastY = toY;
  }
}
