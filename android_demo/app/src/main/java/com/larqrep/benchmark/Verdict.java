package com.larqrep.benchmark;

import com.larqrep.benchmark.core.Agreement;

/** How a verdict looks: a word, a sign and a colour, so that none has to be seen alone. */
final class Verdict {
  private Verdict() {}

  private static int of(String verdict, int agrees, int differs, int unknown) {
    return verdict.equals(Agreement.AGREES) ? agrees : verdict.equals(Agreement.DIFFERS) ? differs : unknown;
  }

  static int word(String verdict) {
    return of(verdict, R.string.agrees, R.string.differs, R.string.unknown);
  }

  static int sign(String verdict) {
    return of(verdict, R.drawable.agrees, R.drawable.differs, R.drawable.unknown);
  }

  /** A background for white text. */
  static int card(String verdict) {
    return of(verdict, R.drawable.card_agrees, R.drawable.card_differs, R.drawable.card_unknown);
  }

  /** A colour of text. */
  static int colour(String verdict) {
    return of(verdict, R.color.agrees_text, R.color.differs_text, R.color.text_quiet);
  }
}
