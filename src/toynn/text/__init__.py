"""Text in and out of a model: tokenizers, sampling, text models."""
