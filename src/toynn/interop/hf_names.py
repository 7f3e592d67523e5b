"""Hugging Face's names of a llama's weights."""

from __future__ import annotations

from collections.abc import Iterable

_GLOBAL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_name(name: str) -> str:
    """The name of a weight of the fused layout in LlamaForCausalLM."""
    if name in _GLOBAL:
        return _GLOBAL[name]
    _, layer, part, end = name.split(".")
    return f"model.layers.{layer}.{_IN_LAYER[part]}.{end}"


def hf_names(names: Iterable[str]) -> dict[str, str]:
    """Hugging Face's name of each."""
    return {name: hf_name(name) for name in names}


def output_biases(n_layers: int) -> list[str]:
    """Weights of LlamaForCausalLM with attention_bias that toynn has not: they must be zero."""
    return [hf_name(f"blk.{i}.attn_output.bias") for i in range(n_layers)]
