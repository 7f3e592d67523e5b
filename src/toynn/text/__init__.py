"""Texts and tokens: documents, tokenizer files, sampling, and decoding of generated tokens."""
