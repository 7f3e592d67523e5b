"""Convert between a model configuration and the config.json of LlamaForCausalLM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from toynn.arguments import integer, positive
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.model.config import RopeScaling, SmolLM2Config
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel

# Keys that change what LlamaForCausalLM computes, each with the only value that toynn supports. Ignored are keys that
# matter only for
# training or initialisation (attention_dropout, initializer_range), and keys that do not change results (use_cache,
# torch_dtype).
_ONLY = {
    "model_type": "llama",
    "hidden_act": "silu",
    "mlp_bias": False,
    "pretraining_tp": 1,
    "partial_rotary_factor": 1.0,
    "sliding_window": None,
    "quantization_config": None,
    "is_decoder": True,
    "rope_interleaved": False,
}
_DEFAULTS = {  # defaults of LlamaConfig, for keys that are missing in config.json
    "hidden_act": "silu",
    "mlp_bias": False,
    "pretraining_tp": 1,
    "partial_rotary_factor": 1.0,
    "is_decoder": True,
    "rope_interleaved": False,
}
_ARCHITECTURE = "LlamaForCausalLM"
_SCALING_KEYS = {
    "linear": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}  # the keys that each rope_type needs
_ROPE_THETA, _RMS_NORM_EPS, _MAX_POSITIONS = 10000.0, 1e-6, 2048


def config_of(model: TrainedModel) -> dict[str, Any]:
    """Return the config.json of a model without a projection lens.

    Raises TinyNNValueError for a RoPE scaling or a width that transformers does not support.
    """
    cfg = model.shape
    if cfg.d_model % cfg.n_heads:  # transformers checks this even if head_dim is given
        raise TinyNNValueError(
            f"d_model = {cfg.d_model} must be a multiple of n_heads = {cfg.n_heads} for transformers; export a "
            "GGUF file instead"
        )
    return {
        "architectures": [_ARCHITECTURE],
        "model_type": "llama",
        "vocab_size": cfg.vocab,
        "hidden_size": cfg.d_model,
        "intermediate_size": cfg.d_ff,
        "num_hidden_layers": cfg.n_layers,
        "num_attention_heads": cfg.n_heads,
        "num_key_value_heads": cfg.n_kv,
        "head_dim": cfg.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": cfg.ctx,
        "rms_norm_eps": cfg.rms_eps,
        "rope_theta": cfg.rope_base,
        "rope_scaling": _rope_scaling_of(cfg),
        "attention_bias": model.shape.qkv_bias,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": not model.shape.untied,
        **ids_of(model),
        "torch_dtype": "float32",
        "use_cache": True,
    }


def ids_of(model: TrainedModel) -> dict[str, Any]:
    """Return the ids of special tokens as config.json and generation_config.json contain them.

    Several end tokens are a list.
    """
    ends = list(model.end_ids)
    ids: dict[str, Any] = {"bos_token_id": model.bos_id, "eos_token_id": ends if len(ends) > 1 else model.eos_id}
    return ids if model.foreign.pad_id is None else {**ids, "pad_token_id": model.foreign.pad_id}


def _rope_scaling_of(cfg: SmolLM2Config) -> dict[str, Any] | None:
    scaling = cfg.rope_scaling
    if scaling.kind == "yarn":
        return _yarn_of(scaling)
    for name in ("attn_factor", *(() if scaling.kind == "linear" else ("freq_scale",))):
        if (value := getattr(scaling, name)) != 1.0:
            raise TinyNNValueError(f"rope_scaling.{name} = {value!r} cannot be exported: it must be 1")
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    factors = scaling.freq_factors(cfg.head_dim, cfg.rope_base)
    if factors is None:
        return None
    theirs = RopeScaling.llama3_hf(scaling.factor, scaling.low_freq, scaling.high_freq, scaling.orig_max_pos)
    if not np.array_equal(factors, theirs.freq_factors(cfg.head_dim, cfg.rope_base)):  # type: ignore[arg-type]
        raise TinyNNValueError(
            "rope_scaling.kind = 'llama3' cannot be exported: for medium wavelengths transformers supports only "
            "'llama3_hf'; export a GGUF file instead, which contains the factors"
        )
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq,
        "high_freq_factor": scaling.high_freq,
        "original_max_position_embeddings": scaling.orig_max_pos,
    }


def _yarn_of(scaling: RopeScaling) -> dict[str, Any]:
    if scaling.ext_factor != 1.0:
        raise TinyNNValueError(f"rope_scaling.ext_factor = {scaling.ext_factor!r} cannot be exported: it must be 1")
    described = {
        "rope_type": "yarn",
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.orig_max_pos,
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
    }
    return described if scaling.attn_factor == 1.0 else {**described, "attention_factor": scaling.amplitude}


def shape_of(content: Any) -> ModelShape:
    """Return the shape that a config.json describes.

    Raises TinyNNError if a key is missing, has another type, or has a value that toynn does not support.
    """
    if not isinstance(content, dict):
        raise FileFormatError(f"the content must be a JSON object, got {type(content).__name__}")
    for key, only in _ONLY.items():
        if (value := content.get(key, _DEFAULTS.get(key))) != only:
            raise FileFormatError(f"{key} is {_shown(value)}, but toynn supports only {only!r}")
    if (names := content.get("architectures")) not in (None, [], [_ARCHITECTURE], _ARCHITECTURE):
        raise FileFormatError(
            f"architectures is {_shown(names)}, but model_type is {content['model_type']!r}, whose class is "
            f"{_ARCHITECTURE!r}; both keys must name the same model"
        )
    for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        if content.get(key) is None:
            raise FileFormatError(f"the key {key} is missing")
    rope_base, scaling = _rope(content)
    n_heads = content["num_attention_heads"]
    return ModelShape(
        vocab=content["vocab_size"],
        d_model=content["hidden_size"],
        n_heads=n_heads,
        n_kv=_given(content, "num_key_value_heads", n_heads),
        d_ff=content["intermediate_size"],
        n_layers=content["num_hidden_layers"],
        ctx=_given(content, "max_position_embeddings", _MAX_POSITIONS),
        rope_base=rope_base,
        rms_eps=_given(content, "rms_norm_eps", _RMS_NORM_EPS),
        head_dim=_given(content, "head_dim", 0),
        rope_scaling=scaling,
        untied=not _flag(content, "tie_word_embeddings"),
        qkv_bias=_flag(content, "attention_bias"),
    )


def token_ids_of(content: dict[str, Any], vocab: int, key: str) -> list[int]:
    """Return the list of ids that `key` (for example eos_token_id) has in a config.json or generation_config.json.

    Raises TinyNNError for an id outside the vocabulary.
    """
    value = content.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    return [integer(key, token, 0, vocab - 1) for token in ids]


def _rope(content: dict[str, Any]) -> tuple[Any, RopeScaling]:
    """Return the base and the scaling of RoPE. They are in rope_theta and rope_scaling, or both in rope_parameters
    (transformers 5).

    A config.json may have both forms if they agree in every key that they share.
    """
    found, rules = _rope_rules(content)
    where = found or "rope_scaling"
    bases = [value for value in (rules.get("rope_theta"), content.get("rope_theta")) if value is not None]
    if len(bases) > 1 and bases[0] != bases[1]:
        raise FileFormatError(f"rope_theta is {_shown(bases[1])}, but {where}.rope_theta is {_shown(bases[0])}")
    base = bases[0] if bases else _ROPE_THETA
    if (part := rules.get("partial_rotary_factor", 1.0)) != 1.0:
        raise FileFormatError(f"{where}.partial_rotary_factor is {_shown(part)}, but toynn supports only 1.0")
    kind = rules.get("rope_type", "default")
    if kind == "default":
        return base, RopeScaling.none()
    if not isinstance(kind, str) or kind not in _SCALING_KEYS:
        raise FileFormatError(
            f"{where}.rope_type is {_shown(kind)}, but toynn supports only 'default', 'linear', 'yarn' and 'llama3'"
        )
    for key in _SCALING_KEYS[kind]:
        if rules.get(key) is None:
            raise FileFormatError(f"the key {where}.{key} is missing")
    numbers = [rules[key] for key in _SCALING_KEYS[kind]]
    if kind == "yarn":
        return base, _yarn(rules, where)
    return base, (RopeScaling.linear if kind == "linear" else RopeScaling.llama3_hf)(*numbers)


def _yarn(rules: dict[str, Any], where: str) -> RopeScaling:
    for key, only in (("mscale", None), ("mscale_all_dim", None), ("truncate", True)):
        if (value := rules.get(key, only)) != only:
            raise FileFormatError(f"{where}.{key} is {_shown(value)}, but toynn does not support it")
    beta_fast, beta_slow = _given(rules, "beta_fast", 32.0), _given(rules, "beta_slow", 1.0)
    scaling = RopeScaling.yarn(
        rules["factor"], rules["original_max_position_embeddings"], beta_fast=beta_fast, beta_slow=beta_slow
    )
    if (amplitude := rules.get("attention_factor")) is None:
        return scaling
    return replace(scaling, attn_factor=positive(f"{where}.attention_factor", amplitude) / scaling.amplitude)


def _rope_rules(content: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the key that holds RoPE's settings, "rope_parameters" or "rope_scaling" ("" for none), and the settings in
    both.
    """
    found = [key for key in ("rope_parameters", "rope_scaling") if content.get(key) is not None]
    for key in found:
        if not isinstance(content[key], dict):
            raise FileFormatError(f"{key} must be a JSON object, got {_shown(content[key])}")
    rules: dict[str, Any] = {}
    for key in found:
        own = dict(content[key])
        if "type" in own:  # the old name of rope_type
            own.setdefault("rope_type", own.pop("type"))
        for name, value in own.items():
            if rules.setdefault(name, value) != value:
                raise FileFormatError(
                    f"rope_scaling and rope_parameters must agree: {name} is {_shown(rules[name])} in rope_parameters "
                    f"and {_shown(value)} in rope_scaling"
                )
    return found[0] if found else "", rules


def _given(content: dict[str, Any], key: str, default: Any) -> Any:
    value = content.get(key)
    return default if value is None else value


def _flag(content: dict[str, Any], key: str) -> bool:
    value = _given(content, key, False)
    if not isinstance(value, bool):
        raise FileFormatError(f"{key} must be true or false, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    return f"{value!r:.60}"
