"""Convert between a shape and the keys of config.json that say which layers have no RoPE, and which layers have a
window.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toynn.arguments import integer
from toynn.errors import FileFormatError
from toynn.model.shape import ModelShape

# kinds of layers, as named in layer_types and in rope_parameters of gemma3
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
_PATTERN = 6  # the interval of global layers if the key sliding_window_pattern is missing


def layers_of(shape: ModelShape) -> dict[str, Any]:
    """Return the keys of config.json for a shape."""
    layers = range(shape.n_layers)
    if shape.no_rope_interval:
        rotates = [int(shape.has_rope(layer)) for layer in layers]
        return {"no_rope_layer_interval": shape.no_rope_interval, "no_rope_layers": rotates}
    if shape.sliding_window:
        return {
            "sliding_window": shape.sliding_window,
            "sliding_window_pattern": shape.global_interval,
            "layer_types": [_LOCAL if shape.is_local(layer) else _GLOBAL for layer in layers],
            "rope_local_base_freq": shape.local_rope_base,
            "query_pre_attn_scalar": shape.query_pre_attn_scalar,
        }
    return {}


def fields_of(given: Mapping[str, Any], architecture: str, no_rope_interval: int) -> dict[str, Any]:
    """Return the fields of a shape that a config.json describes. `check_layers` checks the lists of layers later.

    no_rope_interval: the default of no_rope_layer_interval.
    """
    interval = given.get("no_rope_layer_interval", no_rope_interval)
    fields = {"no_rope_interval": integer("no_rope_layer_interval", interval, 0)}
    if architecture == "gemma3":
        names = {"sliding_window": "sliding_window", "query_pre_attn_scalar": "query_pre_attn_scalar"}
        fields.update({name: integer(key, given[key], 1) for name, key in names.items()})
        fields["global_interval"] = integer("sliding_window_pattern", _global_interval(given), 1)
    return fields


def check_layers(given: Mapping[str, Any], shape: ModelShape) -> None:
    """Raise FileFormatError if a list of layers describes other layers than the shape."""
    if shape.no_rope_interval:
        _check_no_rope(given.get("no_rope_layers"), shape)
    if (kinds := _layer_types(given)) is None:
        return
    if not shape.sliding_window:
        for kind in kinds:
            if kind != _GLOBAL:
                raise FileFormatError(f"layer_types contains {kind!r:.60}, but toynn supports only {_GLOBAL!r}")
        return
    if len(kinds) < shape.n_layers:
        raise FileFormatError(f"layer_types must have an entry for each of {shape.n_layers} layers, got {len(kinds)}")
    for layer, kind in enumerate(kinds[: shape.n_layers]):
        if kind != (_LOCAL if shape.is_local(layer) else _GLOBAL):
            raise FileFormatError(
                f"layer_types[{layer}] is {kind!r:.60}, but toynn supports only lists in which every n-th layer is "
                f"{_GLOBAL!r} and all others are {_LOCAL!r}"
            )


def _layer_types(given: Mapping[str, Any]) -> list[Any] | None:
    kinds = given.get("layer_types")
    if kinds is not None and not isinstance(kinds, list):
        raise FileFormatError(f"layer_types must be a list, got {kinds!r:.60}")
    return kinds


def _global_interval(given: Mapping[str, Any]) -> Any:
    """Return the interval of global layers: the interval that the list layer_types shows, or sliding_window_pattern."""
    pattern, kinds = given.get("sliding_window_pattern", _PATTERN), _layer_types(given)
    if kinds is None or (isinstance(pattern, int) and pattern > len(kinds) and _GLOBAL not in kinds):
        return pattern
    return kinds.index(_GLOBAL) + 1 if _GLOBAL in kinds else len(kinds) + 1


def _check_no_rope(found: Any, shape: ModelShape) -> None:
    """Raise FileFormatError unless no_rope_layers is the list that no_rope_layer_interval gives."""
    if found is None:
        return
    if not isinstance(found, list) or len(found) < shape.n_layers:
        raise FileFormatError(f"no_rope_layers must be a list with a number for each layer, got {found!r:.60}")
    for layer, rotates in enumerate(found[: shape.n_layers]):
        if bool(rotates) != shape.has_rope(layer):
            raise FileFormatError(
                f"no_rope_layers[{layer}] is {rotates!r:.60}, but toynn supports only lists that follow from "
                f"no_rope_layer_interval = {shape.no_rope_interval}"
            )


def split_rope(content: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the keys of gemma3 with the RoPE of global layers only, and the base of local layers.

    The base is in rope_local_base_freq, or in rope_parameters (transformers 5), which then has an entry for each kind
    of layer. The base is None if it is in neither of them. Raises FileFormatError if the two values
    differ, or if the local layers have scaling.
    """
    base = content.get("rope_local_base_freq")
    nested = content.get("rope_parameters")
    if nested is None:
        return content, base
    if not isinstance(nested, dict) or not all(isinstance(nested.get(kind, {}), dict) for kind in (_GLOBAL, _LOCAL)):
        raise FileFormatError(f"rope_parameters must have a JSON object for each kind of layer, got {nested!r:.60}")
    if unknown := [key for key in nested if key not in (_GLOBAL, _LOCAL)]:
        raise FileFormatError(
            f"rope_parameters contains {unknown[0]!r:.60}, but in gemma3 it may contain only {_GLOBAL!r} and {_LOCAL!r}"
        )
    local = nested.get(_LOCAL, {})
    if (kind := local.get("rope_type", "default")) != "default":
        raise FileFormatError(
            f"rope_parameters.{_LOCAL}.rope_type is {kind!r:.60}, but toynn supports only 'default' in local layers"
        )
    own = local.get("rope_theta", base)
    if base is not None and own != base:
        raise FileFormatError(
            f"rope_local_base_freq is {base!r:.60}, but rope_parameters.{_LOCAL}.rope_theta is {own!r:.60}; "
            "both must be equal"
        )
    return {**content, "rope_parameters": nested.get(_GLOBAL)}, own
