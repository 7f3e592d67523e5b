"""The rules for the files of each architecture: one row for each name in `toynn.model.shape.ARCHITECTURES`.

The name of the architecture is `general.architecture` in a GGUF file. `FOLDERS` gives the architecture of a Hugging
Face folder by the `model_type` in its config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from toynn.model.weights import Weight

# Keys of config.json that change what is computed, each with the only value that toynn supports.
_ONLY = {
    "hidden_act": "silu",
    "mlp_bias": False,
    "pretraining_tp": 1,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
    "is_decoder": True,
    "rope_interleaved": False,
    "attention_dropout": 0.0,
}
_SILU, _GELU = {"hidden_act": "silu"}, {"hidden_activation": "gelu_pytorch_tanh"}
_ONLY_IN_GEMMA = {
    **{key: only for key, only in _ONLY.items() if key not in _SILU},
    **_GELU,
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
}
# Defaults of the configuration classes, for keys that are missing in config.json or null. None: the key is required.
_DEFAULTS: dict[str, Any] = {
    **_ONLY,
    "vocab_size": None,
    "hidden_size": None,
    "intermediate_size": None,
    "num_hidden_layers": None,
    "num_attention_heads": None,
    "head_dim": 0,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "attention_bias": False,
}
# The configuration classes that share these defaults have different defaults of num_key_value_heads, so this key is
# required.
_DEFAULTS_OF_OTHERS = {
    **_DEFAULTS,
    "num_key_value_heads": None,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
}


@dataclass(frozen=True)
class Family:
    """The properties of an architecture's files.

    hf_class: the class of transformers that computes the model.
    model_type: `model_type` in config.json; "": the name of the architecture.
    interleaved: whether the rows of q and k are interleaved in GGUF files, see `rope_order`.
    freq_factors: llama.cpp divides the frequencies of RoPE by the tensor of factors.
    only: keys of config.json that change what is computed, each with the only value that toynn supports.
    defaults: the values of keys that are missing in config.json, or that are null there.
    nullable: keys for which null is a value of its own, and not the same as a missing key.
    written: keys with their values that an export writes only into the config.json of this architecture.
    activation: the key of the activation in config.json, with its value.
    norms_without_one: folders contain the weights of norms minus 1.
    windows: the files have keys about windows.
    has_attention_bias: the key attention_bias decides whether the projections have biases.
    heads_divide_width: transformers refuses a d_model that is not a multiple of n_heads.
    heads_fill_width: llama.cpp needs d_model = n_heads * head_dim.
    no_rope_interval: the interval of layers without RoPE in llama.cpp, and the default in transformers; 0: the
        architecture has no such layers.
    """

    hf_class: str
    interleaved: bool
    freq_factors: bool = False
    model_type: str = ""
    only: Mapping[str, Any] = field(default_factory=lambda: _ONLY)
    defaults: Mapping[str, Any] = field(default_factory=lambda: _DEFAULTS)
    nullable: tuple[str, ...] = ()
    written: Mapping[str, Any] = field(default_factory=dict)
    activation: Mapping[str, Any] = field(default_factory=lambda: _SILU)
    norms_without_one: bool = False
    windows: bool = False
    has_attention_bias: bool = False
    heads_divide_width: bool = False
    heads_fill_width: bool = False
    no_rope_interval: int = 0


FAMILIES = {
    "llama": Family(
        "LlamaForCausalLM",
        interleaved=True,
        freq_factors=True,
        only={**_ONLY, "sliding_window": None},
        written={"mlp_bias": False},
        has_attention_bias=True,
        heads_divide_width=True,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        interleaved=False,
        # sliding_window has a meaning only if use_sliding_window is true
        only={**_ONLY, "use_sliding_window": False},
        defaults=_DEFAULTS_OF_OTHERS,
        written={"use_sliding_window": False},
        heads_fill_width=True,
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        interleaved=False,
        only={**_ONLY, "use_sliding_window": False, "attention_bias": False},
        defaults={**_DEFAULTS_OF_OTHERS, "head_dim": 128},
        written={"attention_bias": False, "use_sliding_window": False},
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        interleaved=True,
        only={**_ONLY, "use_sliding_window": False, "attention_bias": False},
        defaults={**_DEFAULTS_OF_OTHERS, "rope_theta": 2000000.0, "tie_word_embeddings": True},
        # The default pad_token_id of the class may be outside the vocabulary, so the key is written as null.
        written={"attention_bias": False, "mlp_bias": False, "use_sliding_window": False, "pad_token_id": None},
        no_rope_interval=4,
    ),
    "gemma3": Family(
        "Gemma3ForCausalLM",
        interleaved=False,
        model_type="gemma3_text",
        only=_ONLY_IN_GEMMA,
        defaults={
            **{key: value for key, value in _DEFAULTS.items() if key not in _SILU},
            **_ONLY_IN_GEMMA,
            "num_key_value_heads": None,
            "head_dim": 256,
            "max_position_embeddings": 131072,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
            "tie_word_embeddings": True,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
        },
        nullable=("sliding_window",),
        written={
            "attention_bias": False,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "pad_token_id": None,
        },
        activation=_GELU,
        norms_without_one=True,
        windows=True,
        heads_divide_width=True,
    ),
}

# The architecture of each model_type in config.json, and how its folders are read.
FOLDERS = {
    **{family.model_type or name: (name, family) for name, family in FAMILIES.items()},
    # A Mistral model without a window is a llama model, and an export writes the class of llama.
    "mistral": (
        "llama",
        replace(
            FAMILIES["llama"],
            hf_class="MistralForCausalLM",
            only={**FAMILIES["llama"].only, "attention_bias": False},
            defaults={
                **_DEFAULTS, "num_key_value_heads": None, "max_position_embeddings": 131072, "sliding_window": 4096,
            },
            nullable=("sliding_window",),
        ),
    ),
}  # fmt: skip


def folder_offset(weight: Weight) -> float:
    """Return the number to add to the values of a weight in a folder: 1 for a norm whose values are stored minus 1,
    otherwise 0.
    """
    return weight.row.fill if FAMILIES[weight.shape.architecture].norms_without_one else 0.0
