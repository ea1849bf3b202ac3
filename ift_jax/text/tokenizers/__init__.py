"""Tokenizers: one interface, and behind it SentencePiece models and `tokenizer.json` files."""
