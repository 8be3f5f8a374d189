package com.larqrep.benchmark;

import android.content.Context;
import android.graphics.Canvas;
import android.graphics.Paint;
import android.util.AttributeSet;
import android.util.TypedValue;
import android.view.View;

/**
 * The time of each run as a bar, in order from zero on, with a line at the median: throttling shows as a slope. Of runs
 * that take more than three times as long, which other apps disturb, only a part is drawn, in another colour.
 */
public final class StripChart extends View {
  private static final double MOST = 3;

  private final Paint bar = new Paint();
  private final Paint cut = new Paint();
  private final Paint line = new Paint(Paint.ANTI_ALIAS_FLAG);
  private final Paint text = new Paint(Paint.ANTI_ALIAS_FLAG);
  private double[] runs = {};
  private double median;

  public StripChart(Context context, AttributeSet attributes) {
    super(context, attributes);
    bar.setColor(context.getColor(R.color.accent));
    bar.setAlpha(150);
    cut.setColor(context.getColor(R.color.text_quiet));
    line.setColor(context.getColor(R.color.text));
    line.setStrokeWidth(pixels(TypedValue.COMPLEX_UNIT_DIP, 1.5f));
    text.setColor(context.getColor(R.color.text));
    text.setTextSize(pixels(TypedValue.COMPLEX_UNIT_SP, 12));
  }

  /** Shows times in milliseconds. */
  void setRuns(double[] milliseconds, double ofMedian) {
    runs = milliseconds;
    median = ofMedian;
    invalidate();
  }

  @Override
  protected void onDraw(Canvas canvas) {
    double slowest = median;
    for (double run : runs) {
      slowest = Math.max(slowest, run);
    }
    double most = Math.min(slowest, MOST * median);
    float above = text.getTextSize() * 1.4f;
    float height = getHeight() - above;
    float step = (float) getWidth() / Math.max(1, runs.length);
    float gap = Math.min(step / 4, pixels(TypedValue.COMPLEX_UNIT_DIP, 2));
    for (int i = 0; i < runs.length; i++) {
      float top = above + height * (float) (1 - Math.min(1, runs[i] / most));
      canvas.drawRect(i * step, top, (i + 1) * step - gap, getHeight(), runs[i] > most ? cut : bar);
    }
    float at = above + height * (float) (1 - median / most);
    canvas.drawLine(0, at, getWidth(), at, line);
    text.setTextAlign(Paint.Align.LEFT);
    String note = getContext().getString(R.string.slowest, Texts.ms(getContext(), slowest));
    canvas.drawText(note, 0, text.getTextSize(), text);
    text.setTextAlign(Paint.Align.RIGHT);
    canvas.drawText(getContext().getString(R.string.line_is_median), getWidth(), text.getTextSize(), text);
  }

  private float pixels(int unit, float value) {
    return TypedValue.applyDimension(unit, value, getResources().getDisplayMetrics());
  }
}
