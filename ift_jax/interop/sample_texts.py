"""Texts with which two readings of a tokenizer are compared.

Each kind of text is one that some tokenizer treats in a way of its own: digits, contractions, runs
of spaces and newlines, code, scripts without spaces, marks that normalization joins, and bytes.
"""

SAMPLE_TEXTS: tuple[str, ...] = (
    "The quick brown fox jumps over the lazy dog.",
    "We'll see it's 3.14159, 1234567890 or 42% of $1,000,000.",
    "def f(x):\n\tif x  >=   10:\n        return {'a': [x]}  # Done.\n\n\n",
    "Caf\u00e9, na\u00efve, Stra\u00dfe, \u0141\u00f3d\u017a; cafe\u0301 in two marks.",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 "
    "\u0645\u0631\u062d\u0628\u0627 \u0939\u093f\u0928\u094d\u0926\u0940",
    "Quotes \u201csmart\u201d \u2014 dashes\u2026 \U0001f600\U0001f469\u200d\U0001f4bb \u00bd",
    "https://example.com/a_b?c=d&e=%20f <html> C++ x^2 ~!@#",
    "UPPER lower MiXeD words-with-hyphens under_scores",
)
CONVERSATION: tuple[tuple[str, str], ...] = (
    ("user", "Name 3 colors, please."),
    ("assistant", "Red, green and blue."),
    ("user", "And in caf\u00e9s?"),
)
