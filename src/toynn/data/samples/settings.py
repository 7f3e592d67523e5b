"""SampleSettings: the user's settings for samples."""

from __future__ import annotations

from dataclasses import dataclass

from toynn.arguments import integer, one_of

LOSSES = ("assistant", "last", "all")
TRUNCATIONS = ("left", "turns", "drop")


@dataclass(frozen=True)
class SampleSettings:
    """Settings of `prepare_samples`.

    loss: the tokens that count for the loss: "assistant" for every answer, "last" for the last answer, "all" for every
        token.
    max_tokens: the largest number of tokens of a sample, or None.
    truncate: what is done with longer samples: "left" drops their first tokens, "turns" drops their oldest turns,
        "drop" leaves the samples out.
    skip_bad: the number of broken samples that are tolerated.

    Raises TinyNNValueError or TinyNNTypeError, which name the setting.
    """

    loss: str = "assistant"
    max_tokens: int | None = None
    truncate: str = "left"
    skip_bad: int = 0

    def __post_init__(self) -> None:
        one_of("loss", self.loss, LOSSES)
        one_of("truncate", self.truncate, TRUNCATIONS)
        integer("skip_bad", self.skip_bad, 0, 2**62)
        if self.max_tokens is not None:
            integer("max_tokens", self.max_tokens, 2, 2**31 - 1)
