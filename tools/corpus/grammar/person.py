"""Somebody in a story, and the words that stand for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Person:
    """Somebody with a name, who may be an animal. As text: the name."""

    name: str
    female: bool
    kind: str  # "girl", "dog", "woman"

    def __str__(self) -> str:
        return self.name

    @property
    def he(self) -> str:
        return "she" if self.female else "he"

    @property
    def He(self) -> str:  # noqa: N802 - as it stands in the sentence
        """For a sentence after speech that ends in ! or ?, which a verb of saying might follow as well."""
        return self.he.capitalize()

    @property
    def him(self) -> str:
        return "her" if self.female else "him"

    @property
    def his(self) -> str:
        return "her" if self.female else "his"

    @property
    def himself(self) -> str:
        return "herself" if self.female else "himself"

    @property
    def child(self) -> str:
        """What a grown-up would call them."""
        return "my girl" if self.female else "my boy"
