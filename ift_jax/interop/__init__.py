"""Other formats: Hugging Face folders, PEFT adapters and GGUF files."""
