"""The parts of a reply: stop strings in pieces of text, safe text for a terminal, and tokens that are not read
again.
"""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toynn.api.sampling_defaults import sampling_defaults
from toynn.model.foreign_settings import ForeignSettings
from toynn.text.sampling import Sampling
from toynn.text.stop_strings import StopStrings, WithoutStart
from toynn.text.terminal_text import terminal_text

pytestmark = pytest.mark.quick

LETTERS = st.text("ab", min_size=1, max_size=4)


def before_stop(text: str, stop: list[str]) -> str:
    """Find the stop string that is complete first, in the simplest way. Return the text before this stop string."""
    for end in range(len(text) + 1):
        ended = [one for one in stop if text[:end].endswith(one)]
        if ended:
            return text[: end - max(map(len, ended))]
    return text


@given(st.lists(LETTERS, max_size=12), st.lists(LETTERS, max_size=3))
def test_the_text_ends_before_the_first_stop_string_for_any_division_into_pieces(
    pieces: list[str], stop: list[str]
) -> None:
    stops = StopStrings(stop)
    shown = ""
    for i, piece in enumerate(pieces):
        shown += stops.add(piece)
        assert before_stop("".join(pieces[: i + 1]), stop).startswith(shown)
    shown += stops.finish()
    assert shown == before_stop("".join(pieces), stop)
    assert (stops.stop in stop) == any(one in "".join(pieces) for one in stop)


@given(st.lists(LETTERS, max_size=6), st.text("ab", max_size=4))
def test_the_start_of_a_text_is_left_out_for_any_division_into_pieces(pieces: list[str], start: str) -> None:
    without, shown = WithoutStart(start), ""
    for i, piece in enumerate(pieces):
        shown += without.add(piece)
        text = "".join(pieces[: i + 1])
        if len(text) >= len(start) or not start.startswith(text):
            assert shown == text.removeprefix(start)  # no piece is held back longer than necessary
    assert shown + without.finish() == "".join(pieces).removeprefix(start)


def test_text_that_cannot_be_part_of_a_stop_string_is_returned_at_once() -> None:
    stops = StopStrings(["\nUser:"])
    assert [stops.add(one) for one in ("Hel", "lo\n", "Us", "eless", "\nUser", ": x", "y")] == [
        "Hel",
        "lo",
        "",
        "\nUseless",
        "",
        "",
        "",
    ]


def test_text_for_a_terminal_has_no_control_characters_except_tabs_and_newlines() -> None:
    every = "".join(map(chr, range(0x110000)))
    shown = terminal_text(every)
    assert len(shown) == len(every)
    assert {one for one in shown if unicodedata.category(one) == "Cc"} == {"\t", "\n"}
    assert all(a == b for a, b in zip(every, shown, strict=True) if unicodedata.category(a) != "Cc")
    assert terminal_text("\x1b]0;title\x07") == "\u241b]0;title\u2407"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", Sampling()),
        ('{"temperature": 0.2, "top_k": 3, "top_p": 0.5, "min_p": 0.1}', Sampling(0.2, 3, 0.5, 0.1)),
        ('{"temperature": 0.2, "top_k": -1, "top_p": "x", "min_p": null, "seed": 5}', Sampling(0.2)),
        ('{"temperature": 0.2, "do_sample": false}', Sampling(0.0)),
    ],
)
def test_sampling_defaults_are_read_from_the_generation_config(config: str, expected: Sampling) -> None:
    assert sampling_defaults(ForeignSettings(generation_config=config)) == expected
