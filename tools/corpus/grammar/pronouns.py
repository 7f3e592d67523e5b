"""Replace names by pronouns if the text before makes the person clear: "Mia sat down. She thought."."""

from __future__ import annotations

import re
from collections.abc import Sequence

from grammar.person import Person

# Persons without a name. After one of them, a pronoun for a person with a name would not be clear.
_MALE = "man|men|father|brothers?|uncle|boy|king|postman|baker|snowman|grandfather|Mr"
_FEMALE = "woman|women|mother|sisters?|aunt|girl|grandmother|Mrs|Miss|Doctor"
_SAYING = "said|asked|cried|called|whispered|shouted|thought"
_MOST = 2  # consecutive pronouns, before the name is used again


def with_pronouns(paragraph: str, cast: Sequence[Person]) -> str:
    """Return the paragraph with a name replaced by "he" or "she" if no other person of the same sex came before it.

    Only names that are the subject of a sentence or of a verb of saying are replaced, and never inside speech.
    """
    people = {person.name: person for person in cast}
    if not people:
        return paragraph
    names = "|".join(sorted(people, key=len, reverse=True))
    token = re.compile(
        rf'"[^"]*"|(?P<says>(?<=[?!,]" )(?:{_SAYING}) (?=(?:{names})\b(?!\'| and\b)))?\b(?P<name>{names})\b'
        rf"|\b(?P<male>{_MALE})\b|\b(?P<female>{_FEMALE})\b"
    )
    seen: dict[bool, set[str]] = {True: set(), False: set()}  # by sex
    consecutive = 0
    parts: list[str] = []
    at = 0
    for found in token.finditer(paragraph):
        if found["male"] or found["female"]:
            seen[found["female"] is not None].add("a person without a name")
        elif not found["name"]:
            for name in re.findall(rf"\b(?:{names})\b", found[0]):
                seen[people[name].female].add(name)
        else:
            person = people[found["name"]]
            known = seen[person.female] == {person.name}
            subject = re.search(r'(?:[.!?]|\.") $', paragraph[: found.start()]) and re.match(
                r" (?!and |the )[a-z]", paragraph[found.end() :]
            )
            if known and consecutive < _MOST and (found["says"] or subject):
                consecutive += 1
                parts += [
                    paragraph[at : found.start()],
                    f"{person.he} {found['says'][:-1]}" if found["says"] else person.He,
                ]
                at = found.end()
            else:
                seen[person.female].add(person.name)
                consecutive = 0
    return "".join(parts) + paragraph[at:]
