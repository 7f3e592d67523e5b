"""The section [dpo] of the configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from toynn.documented_fields import documented
from toynn.errors import ConfigurationError, ConfigurationTypeError, TinyNNTypeError, TinyNNValueError
from toynn.llm.preference import Preference

NEXT_TOKEN, DPO = OBJECTIVES = ("next_token", "dpo")


@dataclass(frozen=True)
class PreferenceArgs:
    """The loss of preference pairs (train.objective = "dpo"); see `toynn.llm.preference.Preference`."""

    beta: float = documented(
        0.1, "factor of the margin of a pair in the loss; a larger value keeps the model closer to the reference model"
    )
    label_smoothing: float = documented(0.0, "sigmoid: assumed share of pairs whose order is wrong, below 0.5")
    loss: str = documented("sigmoid", "loss of a pair: sigmoid (DPO), hinge or ipo")

    def __post_init__(self) -> None:
        found = self.preference()
        object.__setattr__(self, "beta", found.beta)
        object.__setattr__(self, "label_smoothing", found.label_smoothing)

    def preference(self) -> Preference:
        """Return the loss. Raises ConfigurationError or ConfigurationTypeError, which name the key."""
        try:
            return Preference(self.loss, self.beta, self.label_smoothing)
        except TinyNNTypeError as error:
            raise ConfigurationTypeError(f"dpo.{_with_key(error)}") from None
        except TinyNNValueError as error:
            raise ConfigurationError(f"dpo.{_with_key(error)}") from None


def _with_key(error: Exception) -> str:
    text = str(error)
    return f"loss{text.removeprefix('kind')}" if text.startswith("kind") else text
