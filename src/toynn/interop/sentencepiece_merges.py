"""Convert between the scores of a SentencePiece BPE vocabulary and the merges of a tokenizer.json.

SentencePiece and llama.cpp join the two neighbouring pieces whose joined text has the highest score. If several pairs
have this score, they join the leftmost pair. A tokenizer.json lists pairs of pieces instead. The tokenizers library
joins the pair that is first in the list.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from toynn.errors import FileFormatError, TinyNNValueError

LONGEST_PIECE = 256  # largest number of characters in a piece; real pieces have at most about a hundred
_MOST_MERGES = 16  # largest number of merges per token; real vocabularies have about two
_ALWAYS_ALLOWED = 1 << 16  # this number of merges is accepted for any number of tokens
_LONGEST_RUN = 32  # largest length of a run (one repeated character) if several runs have the same score
_MOST_GROUPS = 8  # largest number of groups of runs with equal scores; real vocabularies have one group, for spaces


def merges_by_score(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the merges of pieces with these scores, ordered from the highest score.

    Of the merges that give the same piece, the one with the longest left piece comes first, as in the tokenizer.json
    files that transformers writes.

    Raises FileFormatError if a piece is too long, or if several pieces have equal scores and no list of merges gives
    the tokens that SentencePiece gives.
    """
    found: dict[float, list[tuple[str, str]]] = {}
    n = 0
    for piece, score in scores.items():
        if len(piece) > LONGEST_PIECE:
            raise FileFormatError(
                f"the piece {piece!r:.60} has {len(piece)} characters, but the limit is {LONGEST_PIECE}"
            )
        splits = _splits(piece, scores)
        if splits:
            found.setdefault(score, []).extend(splits)
            n += len(splits)
        if n > (most := max(_ALWAYS_ALLOWED, _MOST_MERGES * len(scores))):
            raise FileFormatError(
                f"the pieces of the vocabulary can be divided into two pieces in at least {n} ways, but the "
                f"limit is {most}"
            )
    merges = []
    equal = 0
    for score in sorted(found, reverse=True):
        group = found[score]
        if len({left + right for left, right in group}) > 1:
            group.sort(key=lambda pair: (-len(pair[0]), -len(pair[1])))
            equal += 1
            _check_equal_scores(group, score, equal)
        merges += group
    return merges


def scores_of(merges: Sequence[tuple[str, str]], pieces: Iterable[str]) -> dict[str, float]:
    """Return scores (0, -1, -2 and so on) with which SentencePiece joins pieces in the same way as these merges.

    Raises TinyNNValueError if there are no such scores: a merge is missing, or no scores give the order of the merges.
    """
    known = set(pieces)
    scores: dict[str, float] = {}
    rank = equal = 0
    for group in _groups(merges):
        joined = {left + right for left, right in group}
        if len(joined) > 1:
            equal += 1
            _check_equal_scores(group, -float(rank), equal)
        for piece in joined:
            if missing := set(_splits(piece, known)).difference(group):
                raise TinyNNValueError(
                    f"llama.cpp would also join the pieces {min(missing)!r:.80}, but the tokenizer has no such "
                    "merge; export a Hugging Face folder instead"
                )
            scores[piece] = -float(rank)
        rank += 1
    for piece in sorted(known.difference(scores)):
        if splits := _splits(piece, known):
            raise TinyNNValueError(
                f"llama.cpp would also join the pieces {splits[0]!r:.80}, but the tokenizer has no such merge; "
                "export a Hugging Face folder instead"
            )
        scores[piece] = -float(rank)
        rank += 1
    return scores


def _groups(merges: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Divide the merges into consecutive groups, so that all merges that give the same piece are in one group."""
    last = {left + right: i for i, (left, right) in enumerate(merges)}
    start, end = 0, -1
    for i, (left, right) in enumerate(merges):
        if i > end and i > start:
            yield list(merges[start:i])
            start = i
        end = max(end, last[left + right])
    if merges:
        yield list(merges[start:])


def _splits(piece: str, known: Mapping[str, float] | set[str]) -> list[tuple[str, str]]:
    """Return the pairs of known pieces that give this piece, in the order of their merges."""
    n = len(piece)
    splits = [i for i in range(n - 1, 0, -1) if piece[:i] in known and piece[i:] in known]
    if len(splits) > 1:
        splits.sort(key=lambda i: -_rank(piece, i))
    return [(piece[:i], piece[i:]) for i in splits]


def _rank(piece: str, i: int) -> int:
    """Return the number by which the merges of a piece are ordered: the merge with the highest number comes first.

    The number is the length of the left piece, except for two splits of the piece that share a part: the right part of
    one split is the left part of the other. For example, "ababa" is ab + aba and also aba + ba. In the text ab|aba|ba,
    SentencePiece joins the two pieces on the left. So ab + aba must come first, although its left piece is shorter.
    """
    n = len(piece)
    if piece[i:] == piece[: n - i] and piece[n - i :] != piece[:i]:
        return max(i, n - i)
    if piece[n - i :] == piece[:i] and piece[i:] != piece[: n - i]:
        return min(i, n - i)
    return i


def _check_equal_scores(group: list[tuple[str, str]], score: float, number: int) -> None:
    """Raise FileFormatError unless the merges join pieces of equal scores from left to right, as SentencePiece does.

    Only runs of one character are checked; other pieces are refused. The vocabularies of Llama and Mistral have runs of
    spaces with one score. number: the number of this group among all groups of equal scores, from 1.
    """
    if number > _MOST_GROUPS:
        raise FileFormatError(
            f"the vocabulary has more than {_MOST_GROUPS} groups of pieces with equal scores, but toynn "
            f"supports at most {_MOST_GROUPS}"
        )
    one, other = sorted({left + right for left, right in group}, key=len)[:2]
    runs = {len(left + right) for left, right in group}
    if len(set("".join(left + right for left, right in group))) > 1 or max(runs) > _LONGEST_RUN:
        raise FileFormatError(
            f"the merges of the pieces {one!r:.60} and {other!r:.60} have the same score {score:.6g}, but equal "
            f"scores are supported only for pieces that repeat one character at most {_LONGEST_RUN} times"
        )
    ranks = {(len(left), len(right)): rank for rank, (left, right) in enumerate(group)}
    for n in range(2, 2 * max(runs) + 2):
        if _joined(n, ranks, by_rank=True) != _joined(n, ranks, by_rank=False):
            raise FileFormatError(
                f"the pieces that repeat {one[0]!r} have equal scores ({score:.6g}), but toynn supports equal scores "
                "only if merges of a tokenizer.json can join these pieces in the same way as SentencePiece"
            )


def _joined(n: int, ranks: Mapping[tuple[int, int], int], *, by_rank: bool) -> list[int]:
    """Return the lengths of the pieces into which n equal characters are joined.

    ranks: the rank of each merge, by the lengths of its two pieces. by_rank: the merge with the lowest rank is applied
        first, as in the tokenizers library; False: the leftmost merge, as in SentencePiece.
    """
    parts = [1] * n
    while places := [i for i, pair in enumerate(itertools.pairwise(parts)) if pair in ranks]:
        at = min(places, key=lambda i: ranks[parts[i], parts[i + 1]]) if by_rank else places[0]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
