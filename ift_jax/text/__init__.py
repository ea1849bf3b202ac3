"""Text: records, chat templates, tokenizers, and examples with their loss weights."""
