"""Names that are plain from what stands before become pronouns: "Mia sat down. She thought."."""

from __future__ import annotations

import re
from collections.abc import Sequence

from grammar.person import Person

# Somebody without a name, who takes a pronoun away from the ones with a name.
_MALE = "man|men|father|brothers?|uncle|boy|king|postman|baker|snowman|grandfather|Mr"
_FEMALE = "woman|women|mother|sisters?|aunt|girl|grandmother|Mrs|Miss|Doctor"
_SAYING = "said|asked|cried|called|whispered|shouted|thought"
_MOST = 2  # pronouns on end; then the name again


def with_pronouns(paragraph: str, cast: Sequence[Person]) -> str:
    """The paragraph, where a name gives way to "he" or "she" if nobody else of its sex was mentioned before.

    Only where the name stands as a sentence's subject, or says something; never in speech.
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
    on_end = 0
    parts: list[str] = []
    at = 0
    for found in token.finditer(paragraph):
        if found["male"] or found["female"]:
            seen[found["female"] is not None].add("somebody")
        elif not found["name"]:
            for name in re.findall(rf"\b(?:{names})\b", found[0]):
                seen[people[name].female].add(name)
        else:
            person = people[found["name"]]
            known = seen[person.female] == {person.name}
            subject = re.search(r'(?:[.!?]|\.") $', paragraph[: found.start()]) and re.match(
                r" (?!and |the )[a-z]", paragraph[found.end() :]
            )
            if known and on_end < _MOST and (found["says"] or subject):
                on_end += 1
                parts += [
                    paragraph[at : found.start()],
                    f"{person.he} {found['says'][:-1]}" if found["says"] else person.He,
                ]
                at = found.end()
            else:
                seen[person.female].add(person.name)
                on_end = 0
    return "".join(parts) + paragraph[at:]
