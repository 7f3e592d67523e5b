"""A person in a story, and the words that refer to them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Person:
    """A person or an animal with a name. Its text form is the name."""

    name: str
    female: bool
    kind: str  # "girl", "dog", "woman"

    def __str__(self) -> str:
        return self.name

    @property
    def he(self) -> str:
        return "she" if self.female else "he"

    @property
    def He(self) -> str:  # noqa: N802 - named like the word in the sentence
        """The pronoun with a capital, for a new sentence after speech that ends with ! or ?."""
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
        """How an adult would address them."""
        return "my girl" if self.female else "my boy"
