"""The section [data] of the configuration of a training run, and the windows that it selects."""

from __future__ import annotations

from dataclasses import dataclass, replace

from toynn.arguments import boolean, one_of
from toynn.data import PackedTokens, WindowBatcher
from toynn.data.grouped_windows import GroupedWindows
from toynn.data.pairs import PairBatcher
from toynn.data.sample_windows import SampleWindows
from toynn.data.windows import Windows
from toynn.documented_fields import documented
from toynn.errors import ConfigurationError

PACKED, GROUPED, PADDED = BATCHINGS = ("packed", "grouped", "padded")


@dataclass(frozen=True)
class DataArgs:
    """How the tokens of the data become windows."""

    document_attention: bool | None = documented(
        None,
        "a token sees only tokens of its own document, and windows contain whole samples. Default: true for samples, "
        "false for plain text",
    )
    batching: str = documented(
        PACKED,
        "how samples are put into windows: packed (several samples in a window), grouped (one sample in a window; "
        "a step with short samples has short windows) or padded (one sample in a window of train.t_seq tokens)",
    )

    def __post_init__(self) -> None:
        one_of("data.batching", self.batching, BATCHINGS)
        if self.document_attention is not None:
            value = boolean("data.document_attention", self.document_attention)
            object.__setattr__(self, "document_attention", value)

    @property
    def shares_windows(self) -> bool:
        """True if several samples or documents may share a window. Their tokens then do not see each other."""
        return bool(self.document_attention) and self.batching == PACKED

    def explicit(self, document_attention: bool) -> DataArgs:
        """Return a copy with a value for document_attention instead of None."""
        return self if self.document_attention is not None else replace(self, document_attention=document_attention)


def packs_samples(split: PackedTokens, args: DataArgs) -> bool:
    """Return whether windows contain whole samples."""
    return bool(args.document_attention) and split.starts is not None and not split.meta.pairs


def end_of_documents(split: PackedTokens, args: DataArgs) -> int | None:
    """Return the token that ends each document, if a token of plain text must see only its own document.

    Raises ConfigurationError if the data has no such token.
    """
    if not args.document_attention or split.starts is not None:
        return None
    if split.meta.eos_id is None:
        raise ConfigurationError(
            "data.document_attention = true needs data with an end token after each document, but the data has no end "
            "token; prepare texts with `toynn prepare --eos`, or leave out the key"
        )
    return split.meta.eos_id


def windows_of(split: PackedTokens, t_seq: int, seed: int, args: DataArgs, windows_of_step: int) -> Windows:
    """Return the windows, or preference pairs, of a split in a random order.

    windows_of_step: the number of windows that an optimizer step computes.

    Raises ConfigurationError if the data cannot be divided as `args` says.
    """
    if args.batching != PACKED and (split.meta.pairs or split.starts is None):
        kind = "preference pairs" if split.meta.pairs else "plain text"
        raise ConfigurationError(
            f'data.batching = "{args.batching}" needs data made of samples, but the data is {kind}; leave out the key'
        )
    if args.batching != PACKED and not args.document_attention:
        raise ConfigurationError(
            f'data.batching = "{args.batching}" puts whole samples into windows, but data.document_attention = false '
            "lets a window begin or end inside a sample; leave out one of these keys"
        )
    if split.meta.pairs:
        return PairBatcher(split, t_seq, seed)
    if packs_samples(split, args) and args.batching != PACKED:
        return GroupedWindows(split, t_seq, seed, windows_of_step, padded=args.batching == PADDED)
    if packs_samples(split, args):
        return SampleWindows(split, t_seq, seed)
    return WindowBatcher(split.tokens, t_seq, seed, split.counted, end_of_documents(split, args))


def notes_on_windows(windows: Windows) -> tuple[str, ...]:
    """Return sentences for the user: how samples or pairs are put into windows, and how many samples are too long."""
    if isinstance(windows, PairBatcher):
        length, full = f"{windows.t_seq} tokens", f"{windows.filled:.1%} full"
        return (f"each training pair has two windows of {length}; the windows are {full} on average",)
    if not isinstance(windows, SampleWindows | GroupedWindows):
        return ()
    full = f"which are {windows.filled:.1%} full"
    if isinstance(windows, SampleWindows):
        notes = [f"{windows.samples} training samples share {windows.windows_per_epoch} windows in an epoch, {full}"]
    else:
        lengths = f"{windows.shortest} to {windows.longest}" if windows.shortest < windows.longest else windows.longest
        notes = [f"each of {windows.samples} training samples has its own window of {lengths} tokens, {full}"]
    if windows.divided:
        are = "is" if windows.divided == 1 else "are"
        notes.append(
            f"{windows.divided} of the training samples {are} longer than a window of {windows.t_seq} tokens and {are} "
            "divided into parts, which do not see each other; use a larger train.t_seq, or shorten samples with "
            "`toynn prepare --max-tokens`"
        )
    return tuple(notes)


def filled_share(windows: Windows) -> float:
    """Return the share of the windows that is not padding, from 0 to 1."""
    return windows.filled if isinstance(windows, SampleWindows | GroupedWindows | PairBatcher) else 1.0
