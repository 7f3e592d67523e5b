"""Find weights by names of groups and by patterns of names."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from toynn.errors import TinyNNValueError
from toynn.model.shape import ModelShape
from toynn.model.weights import GROUPS, weights_of


def matching_names(shape: ModelShape, patterns: Iterable[str]) -> frozenset[str]:
    """Return the names of the trainable weights that match a pattern.

    patterns: names of groups in `GROUPS`, and names of weights with * and ? as in file names, like "blk.28.*".

    Raises TinyNNValueError for a pattern that matches no trainable weight.
    """
    weights = [weight for weight in weights_of(shape) if weight.trainable]
    found: set[str] = set()
    for pattern in patterns:
        fits = GROUPS.get(pattern, lambda weight, pattern=pattern: fnmatchcase(weight.name, pattern))
        names = {weight.name for weight in weights if fits(weight)}
        if not names:
            raise TinyNNValueError(
                f"{pattern!r:.60} matches no weight of the model; use one of {', '.join(GROUPS)}, or names of weights "
                f"like 'blk.0.*' and {weights[0].name!r}"
            )
        found |= names
    return frozenset(found)
