"""What the start of a run checks and chooses for its objective: the next token, or preference pairs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from toynn.data import DataFolder
from toynn.data.pairs import tokens_needed
from toynn.errors import ConfigurationError
from toynn.training.config import TrainConfig
from toynn.training.data_config import packs_samples
from toynn.training.preference_config import DPO, NEXT_TOKEN
from toynn.wording import spelled


def for_data(config: TrainConfig, data: DataFolder, folder: Path) -> TrainConfig:
    """Return the configuration with a value for train.t_seq, if the data consists of preference pairs.

    Raises ConfigurationError if train.objective does not fit the data, or if train.t_seq is too small for the pairs.
    """
    objective = DPO if data.meta.pairs else NEXT_TOKEN
    if config.train.objective != objective:
        kind = "preference pairs" if data.meta.pairs else "no preference pairs"
        raise ConfigurationError(
            f'train.objective must be "{objective}" for {folder}, which contains {kind}, got "{config.train.objective}"'
        )
    if not data.meta.pairs:
        return config
    if config.data.document_attention:
        raise ConfigurationError(
            "data.document_attention = true does not fit preference pairs, because each window has one sequence; leave "
            "out the key"
        )
    needed = max(tokens_needed(data.train), tokens_needed(data.validation))
    if config.train.t_seq == 0:
        return dataclasses.replace(config, train=dataclasses.replace(config.train, t_seq=needed))
    if config.train.t_seq < needed:
        raise ConfigurationError(
            f"train.t_seq = {config.train.t_seq} is too small: the longest sequence of {folder} needs {needed}; leave "
            f"the key out, or prepare the pairs with {_max_tokens(config.train.t_seq)}"
        )
    return config


def check_length(config: TrainConfig, data: DataFolder, context: int, folder: Path) -> None:
    """Raise ConfigurationError if the data has no complete window, or a pair longer than the context of the model."""
    t_seq, tokens = config.train.t_seq or context, len(data.train)
    if tokens < t_seq + 1 and not data.meta.pairs and not packs_samples(data.train, config.data):
        key = "train.t_seq" if config.train.t_seq else "model.ctx"
        remedy = "add text" if tokens < 2 else f"set train.t_seq to at most {min(tokens - 1, context)}, or add text"
        raise ConfigurationError(
            f"{key} = {t_seq} is too large: a window of this length needs {t_seq + 1} tokens, but {folder} has "
            f"{tokens} training tokens; {remedy}"
        )
    if data.meta.pairs and t_seq > context:
        raise ConfigurationError(
            f"train.t_seq = {config.train.t_seq}, which the longest sequence of {folder} needs, must be at most "
            f"model.ctx = {context}; prepare the pairs with {_max_tokens(context)}"
        )


def refuse_random_weights(config: TrainConfig) -> None:
    """Raise ConfigurationError for preference pairs, because training on them must start from a model."""
    if config.train.objective == DPO:
        raise ConfigurationError(
            f'train.objective = "{DPO}" needs a model to start from; give the model with '
            f"{spelled('init=', '--init')}, or give the base of an adapter with {spelled('base=', '--base')}"
        )


def _max_tokens(t_seq: int) -> str:
    """Return the option that limits a sequence to the tokens of a window and one more token, which is only a target."""
    return spelled(f"max_tokens={t_seq + 1}", f"--max-tokens {t_seq + 1}")
