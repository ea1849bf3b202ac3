"""Text to token ids and loss weights: tokenizers, records, chat templates, formats."""
