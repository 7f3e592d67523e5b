"""Convert between a model configuration and the config.json of transformers' classes.

An import refuses values that change what is computed and that toynn does not support. It ignores keys that matter only
for the initialisation (initializer_range), and keys that do not change results (use_cache, torch_dtype).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from toynn.arguments import integer, positive
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.interop.families import FAMILIES, FOLDERS
from toynn.interop.hf_layers import check_layers, fields_of, layers_of, split_rope
from toynn.model.config import RopeScaling, SmolLM2Config
from toynn.model.shape import ARCHITECTURES, ModelShape
from toynn.model.trained_model import TrainedModel

_ORIGINAL = "original_max_position_embeddings"
# The supported kinds of RoPE scaling, each with its required keys in the order of RopeScaling's arguments.
_REQUIRED = {
    "linear": ("factor",),
    "yarn": ("factor", _ORIGINAL),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", _ORIGINAL),
}


def config_of(model: TrainedModel) -> dict[str, Any]:
    """Return the config.json of a model without a projection lens.

    Raises TinyNNValueError for a RoPE scaling or a width that transformers does not support.
    """
    cfg = model.shape
    family = FAMILIES[cfg.architecture]
    if family.heads_divide_width and cfg.d_model % cfg.n_heads:  # transformers checks this even if head_dim is given
        raise TinyNNValueError(
            f"d_model = {cfg.d_model} must be a multiple of n_heads = {cfg.n_heads} for transformers; export a "
            "GGUF file instead"
        )
    return {
        "architectures": [family.hf_class],
        "model_type": family.model_type or cfg.architecture,
        "vocab_size": cfg.vocab,
        "hidden_size": cfg.d_model,
        "intermediate_size": cfg.d_ff,
        "num_hidden_layers": cfg.n_layers,
        "num_attention_heads": cfg.n_heads,
        "num_key_value_heads": cfg.n_kv,
        "head_dim": cfg.head_dim,
        **family.activation,
        "max_position_embeddings": cfg.ctx,
        "rms_norm_eps": cfg.rms_eps,
        "rope_theta": cfg.rope_base,
        "rope_scaling": _rope_scaling_of(cfg),
        **({"attention_bias": cfg.qkv_bias} if family.has_attention_bias else {}),
        "attention_dropout": 0.0,
        **family.written,
        **layers_of(cfg),
        "tie_word_embeddings": not model.shape.untied,
        **ids_of(model),
        "torch_dtype": "float32",
        "use_cache": True,
    }


def ids_of(model: TrainedModel) -> dict[str, Any]:
    """Return the ids of special tokens as config.json and generation_config.json contain them.

    If there are several end tokens, "eos_token_id" is a list.
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
        raise TinyNNValueError(
            f"rope_scaling.ext_factor = {scaling.ext_factor!r} cannot be exported to a folder: transformers supports "
            "only 1; export a GGUF file instead"
        )
    return {
        "rope_type": "yarn",
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.orig_max_pos,
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
        **({} if scaling.attn_factor == 1.0 else {"attention_factor": scaling.amplitude}),
    }


def shape_of(content: Any) -> ModelShape:
    """Return the shape that a config.json describes.

    Raises TinyNNError if a key is missing, has another type, or has a value that toynn does not support.
    """
    if not isinstance(content, dict):
        raise FileFormatError(f"the content must be a JSON object, got {type(content).__name__}")
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in FOLDERS:
        supported = ", ".join(repr(name) for name in FOLDERS)
        raise FileFormatError(f"model_type is {_shown(kind)}, but toynn supports only {supported}")
    architecture, family = FOLDERS[kind]
    if (names := content.get("architectures")) not in (None, [], [family.hf_class], family.hf_class):
        raise FileFormatError(
            f"architectures is {_shown(names)}, but model_type is {kind!r}, whose class is "
            f"{family.hf_class!r}; both keys must name the same model"
        )
    given = {
        **family.defaults,
        **{key: value for key, value in content.items() if value is not None or key in family.nullable},
    }
    for key, only in family.only.items():
        if (value := given.get(key)) != only:
            raise FileFormatError(f"{key} is {_shown(value)}, but toynn supports only {only!r}")
    for key, value in given.items():
        if value is None and key not in family.only:
            raise FileFormatError(f"the key {key} is missing")
    fields = fields_of(given, architecture, family.no_rope_interval)
    if architecture == "gemma3":
        content, base = split_rope(content)
        fields["local_rope_base"] = given["rope_local_base_freq"] if base is None else base
    rope_base, scaling = _rope(content, given["rope_theta"])
    n_heads = given["num_attention_heads"]
    shape = ModelShape(
        vocab=given["vocab_size"],
        d_model=given["hidden_size"],
        n_heads=n_heads,
        n_kv=given.get("num_key_value_heads", n_heads),
        d_ff=given["intermediate_size"],
        n_layers=given["num_hidden_layers"],
        ctx=given["max_position_embeddings"],
        rope_base=rope_base,
        rms_eps=given["rms_norm_eps"],
        head_dim=given["head_dim"],
        rope_scaling=scaling,
        untied=not _flag(given, "tie_word_embeddings"),
        architecture=architecture,
        **{
            "qkv_bias": _flag(given, "attention_bias"),
            **fields,
            **ARCHITECTURES[architecture],
        },
    )
    check_layers(given, shape)
    return shape


def token_ids_of(content: dict[str, Any], vocab: int, key: str) -> list[int]:
    """Return the list of ids that `key` (for example eos_token_id) has in a config.json or generation_config.json.

    Raises TinyNNError for an id outside the vocabulary.
    """
    value = content.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    return [integer(key, token, 0, vocab - 1) for token in ids]


def _rope(content: dict[str, Any], default_base: Any) -> tuple[Any, RopeScaling]:
    """Return the base and the scaling of RoPE. They are in rope_theta and rope_scaling, or both in rope_parameters
    (transformers 5).

    A config.json may have both forms if they agree in every key that they share.
    """
    found, rules = _rope_rules(content)
    where = found or "rope_scaling"
    bases = [value for value in (rules.get("rope_theta"), content.get("rope_theta")) if value is not None]
    if len(bases) > 1 and bases[0] != bases[1]:
        raise FileFormatError(
            f"rope_theta is {_shown(bases[1])}, but {where}.rope_theta is {_shown(bases[0])}; both must be equal"
        )
    base = bases[0] if bases else default_base
    if (part := rules.get("partial_rotary_factor", 1.0)) != 1.0:
        raise FileFormatError(f"{where}.partial_rotary_factor is {_shown(part)}, but toynn supports only 1.0")
    return base, _scaling(content, where, rules)


def _scaling(content: dict[str, Any], where: str, rules: dict[str, Any]) -> RopeScaling:
    """Return the scaling of RoPE. where: the key of config.json that contains the rules."""
    kind = rules.get("rope_type", "default")
    if kind == "default":
        return RopeScaling.none()
    if not isinstance(kind, str) or kind not in _REQUIRED:
        supported = ", ".join(repr(name) for name in _REQUIRED)
        raise FileFormatError(f"{where}.rope_type is {_shown(kind)}, but toynn supports only 'default', {supported}")
    for key in _REQUIRED[kind]:
        if rules.get(key) is None:
            raise FileFormatError(f"the key {where}.{key} is missing")
    numbers = [rules[key] for key in _REQUIRED[kind]]
    if kind == "linear":
        return RopeScaling.linear(*numbers)
    outer = content.get(_ORIGINAL)  # transformers prefers this key to the same key inside the RoPE settings
    if outer is not None and outer != rules[_ORIGINAL]:
        raise FileFormatError(
            f"{_ORIGINAL} is {_shown(outer)}, but {where}.{_ORIGINAL} is {_shown(rules[_ORIGINAL])}; both must be equal"
        )
    return RopeScaling.llama3_hf(*numbers) if kind == "llama3" else _yarn(where, rules, numbers)


def _yarn(where: str, rules: dict[str, Any], numbers: list[Any]) -> RopeScaling:
    """Return the YaRN scaling. numbers: the values of its required keys."""
    for key, only in (("truncate", True), ("mscale", None), ("mscale_all_dim", None)):
        if (value := rules.get(key, only)) != only:
            raise FileFormatError(f"{where}.{key} is {_shown(value)}, but toynn supports only {only}")
    betas = {name: rules[name] for name in ("beta_fast", "beta_slow") if rules.get(name) is not None}
    scaling = RopeScaling.yarn(*numbers, **betas)
    if (amplitude := rules.get("attention_factor")) is None:
        return scaling
    return replace(scaling, attn_factor=_quotient(positive(f"{where}.attention_factor", amplitude), scaling.amplitude))


def _quotient(product: float, factor: float) -> float:
    """Return product / factor, or a number with fewer digits whose product with `factor` is exactly `product`."""
    exact = product / factor
    return next((x for digits in range(1, 17) if (x := float(f"{exact:.{digits}g}")) * factor == product), exact)


def _rope_rules(content: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the key that holds RoPE's settings, "rope_parameters" or "rope_scaling" ("" for none), and the settings of
    both keys together.
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


def _flag(content: dict[str, Any], key: str) -> bool:
    value = content[key]
    if not isinstance(value, bool):
        raise FileFormatError(f"{key} must be true or false, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    return f"{value!r:.60}"
