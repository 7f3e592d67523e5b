"""GGUF keys for settings that llama.cpp has no key for. An export writes them, and only toynn's import reads them."""

from __future__ import annotations

BEGIN = "toynn.bos_token_id"  # id of the begin token, if it differs from tokenizer.ggml.bos_token_id
NO_TOKEN = -1  # value of BEGIN if the model has no begin token
NORMALIZES = "toynn.tokenizer.normalizes"  # false: the normalizer that belongs to the pre-tokenizer's name is not used
NORMALIZED = "toynn.tokenizer.normalized"  # ids of added tokens that are looked for in normalized text
PREFIX = "toynn.tokenizer.prefix"  # where a SentencePiece tokenizer puts a space, if llama.cpp puts it elsewhere
# ids of the tokens before and after a text, if llama.cpp cannot add these tokens
BEFORE, AFTER = "toynn.tokenizer.before", "toynn.tokenizer.after"
# An adapter's alpha and kind of scale, if adapter.lora.alpha / rank does not determine them exactly.
ADAPTER_ALPHA, USE_RSLORA = "toynn.adapter.alpha", "toynn.adapter.use_rslora"
