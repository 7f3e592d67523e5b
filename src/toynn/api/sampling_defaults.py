"""The sampling settings that a model recommends in its generation_config.json, or in the same keys of a GGUF file."""

from __future__ import annotations

from dataclasses import replace

from toynn.errors import TinyNNError
from toynn.model.foreign_settings import ForeignSettings, json_object
from toynn.text.sampling import Sampling

_KEYS = ("temperature", "top_k", "top_p", "min_p")


def sampling_defaults(foreign: ForeignSettings) -> Sampling:
    """Return the sampling settings of a model. A setting that the model does not have has the default of toynn.

    "do_sample": false means that the model takes the most likely token. A value that toynn cannot use is ignored,
    because the file comes from another program.
    """
    config = json_object("generation_config", foreign.generation_config)
    sampling = Sampling()
    for key in _KEYS:
        if config.get(key) is not None:
            try:
                sampling = replace(sampling, **{key: config[key]})
            except TinyNNError:
                continue
    return replace(sampling, temperature=0.0) if config.get("do_sample") is False else sampling
