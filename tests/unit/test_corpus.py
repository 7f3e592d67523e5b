"""The corpus equals the output of its script, its stories differ, and its English follows rules that can be checked."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import write_corpus
from grammar.person import Person
from grammar.pronouns import with_pronouns
from grammar.schemas import SCHEMAS
from grammar.telling import Draw, Teller, finished
from paths import EXAMPLES

TEXT = (EXAMPLES / "data" / "corpus.txt").read_bytes().decode("ascii")
STORIES = TEXT.split("\n<|endoftext|>\n")[:-1]


# ---- the file ----


def test_the_corpus_file_equals_the_output_of_the_script() -> None:
    assert write_corpus.corpus() == TEXT


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_the_corpus_does_not_depend_on_the_hash_seed(hash_seed: str) -> None:
    command = [sys.executable, write_corpus.__file__, "--check"]
    done = subprocess.run(command, check=False, env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_check_detects_a_changed_byte_and_writing_repairs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT.replace("kite", "Kite", 1), encoding="ascii")
    monkeypatch.setattr(write_corpus, "CORPUS", path)
    monkeypatch.setattr(sys, "argv", ["write_corpus.py", "--check"])
    assert write_corpus.main() == 1
    monkeypatch.setattr(sys, "argv", ["write_corpus.py"])
    assert write_corpus.main() == 0
    assert path.read_bytes() == TEXT.encode("ascii")


def test_the_file_is_plain_ascii_of_the_promised_size_and_ends_every_story_with_the_separator() -> None:
    assert 700_000 <= len(TEXT) <= 950_000
    assert set(TEXT) <= {"\n", *map(chr, range(32, 127))}
    assert TEXT.endswith("\n<|endoftext|>\n")
    assert len(STORIES) == len(SCHEMAS) * write_corpus.STORIES_PER_SCHEMA + len(write_corpus.handwritten())
    assert all(story and story == story.strip() for story in STORIES)


def test_the_corpus_has_at_least_20_schemas_and_40_handwritten_stories() -> None:
    by_hand = write_corpus.handwritten()
    assert len(SCHEMAS) >= 20
    assert len(by_hand) >= 40
    assert all(80 <= len(story.split()) <= 200 for story in by_hand)
    assert all(STORIES.count(story) == 1 for story in by_hand)


# ---- no two stories are equal or similar ----


def runs(story: str) -> set[str]:
    """Return all sequences of eight words of a story. This does not use the code of the script."""
    words = story.split()
    return {" ".join(words[i : i + 8]) for i in range(len(words) - 7)}


def nearest(stories: list[str]) -> float:
    """Return the largest share of eight-word sequences that a story has in common with a longer story."""
    found_in: dict[str, list[int]] = defaultdict(list)
    sizes: list[int] = []
    for i, story in enumerate(stories):
        sizes.append(len(runs(story)))
        for run in runs(story):
            found_in[run].append(i)
    common = Counter(pair for places in found_in.values() for pair in itertools.combinations(places, 2))
    return max((n / min(sizes[a], sizes[b]) for (a, b), n in common.items()), default=0.0)


def test_no_story_shares_more_than_a_quarter_of_its_runs_of_eight_words_with_another() -> None:
    assert 0 < nearest(STORIES) <= 0.25


@pytest.mark.parametrize("i", [0, 100, 500, 1000])
def test_a_story_with_other_names_or_one_more_sentence_counts_as_similar(i: int) -> None:
    assert nearest([STORIES[i], STORIES[i] + " That was all."]) > 0.9
    name = re.findall(r"(?<=[a-z] )[A-Z][a-z]+", STORIES[i])[0]
    assert nearest([STORIES[i], STORIES[i].replace(name, "Ottilie")]) > 0.25


def test_at_least_a_seventh_of_every_story_and_half_on_average_is_unique() -> None:
    """Unique text cannot be predicted in the validation split by a model that has memorized the training stories."""
    times = Counter(run for story in STORIES for run in runs(story))
    own = [sum(times[run] == 1 for run in runs(story)) / len(runs(story)) for story in STORIES]
    assert min(own) >= 1 / 7
    assert sum(own) / len(own) >= 0.5


def test_a_schema_with_too_few_variants_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def thin(t: Teller) -> None:
        t.say("One day [Tom|Mia] went to the market and bought a hat and came home again.")

    monkeypatch.setitem(SCHEMAS, "thin", thin)
    with pytest.raises(ValueError, match="thin gives only 1 of 3 stories"):
        write_corpus.stories_of("thin", 3)


def test_a_larger_number_of_stories_only_adds_stories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = write_corpus.stories_of("kite", 30)
    assert len(more) == 30
    assert more[: write_corpus.STORIES_PER_SCHEMA] == write_corpus.stories_of("kite", write_corpus.STORIES_PER_SCHEMA)
    assert nearest(more) <= 0.25
    monkeypatch.setattr(write_corpus, "SCHEMAS", {"kite": SCHEMAS["kite"]})
    monkeypatch.setattr(sys, "argv", ["write_corpus.py", "--stories", "30", "--out", str(tmp_path / "new" / "text")])
    assert write_corpus.main() == 0
    assert {*more, *write_corpus.handwritten()} == {
        *(tmp_path / "new" / "text").read_text(encoding="ascii").split("\n<|endoftext|>\n")[:-1]
    }


# ---- English ----

# Words whose first sound decides between "a" and "an", against the rule for their first letter.
AN_BEFORE = {"hour", "honest", "heir"}
A_BEFORE = {"one", "once", "use", "useful", "used", "unicorn", "uniform", "union"}
FAULTS = {
    "a mark of the grammar is left over": re.compile(r"[\[\]{}<>|_*~=#^\\/]"),
    "two spaces": re.compile(r"  "),
    "space before punctuation": re.compile(r" [.,!?;:]"),
    "no space after punctuation": re.compile(r"[.,!?;:][A-Za-z]"),
    "punctuation twice": re.compile(r"[.,!?;:]{2}"),
    "a word twice": re.compile(r"\b(?!(?:had|that)\b)(\w+) \1\b", re.IGNORECASE),
    "a sentence begins small": re.compile(r"(?:^|[.!?] \"?|\n\"?|\.\" \"?)[a-z]"),
    "speech begins small": re.compile(r"(?:said|asked|cried|thought|called)(?: [\w' ]+)?, \"[a-z]"),
    "speech ends without punctuation": re.compile(r'[a-z]"(?= said| asked| cried)'),
    "a full stop before who speaks": re.compile(r'\."(?= (?:said|asked|cried|called|he said|she said)\b)'),
    "no subject form": re.compile(r"(?:^|[.!?] )(?:Him|Them|Me) "),
    "I is written large": re.compile(r"\bi\b"),
    "was and were": re.compile(r"\b(?:they|we|you) was\b|(?<!if )\b(?:he|she|it) were\b", re.IGNORECASE),
    "has and have": re.compile(r"\b(?:they|we|you) has\b|\b(?:he|she|it) have\b", re.IGNORECASE),
}
# Direct speech that continues after "said Tom," starts with a small letter.
GOES_ON = re.compile(r',"[^"]*, "[a-z]')


def faults(story: str) -> list[str]:
    found = [name for name, pattern in FAULTS.items() if pattern.search(GOES_ON.sub('," said, "A', story))]
    for paragraph in story.split("\n\n"):
        if paragraph.count('"') % 2:
            found.append("quotation marks do not pair")
        if not re.search(r'[.!?]"?$', paragraph):
            found.append("a paragraph does not end")
        if "\n" in paragraph:
            found.append("a line breaks")
    for article, word in re.findall(r"\b([Aa]n?) ([A-Za-z]+)", story):
        takes_an = word in AN_BEFORE or (word[0] in "aeiouAEIOU" and word not in A_BEFORE)
        if takes_an != (article in ("an", "An")):
            found.append("a and an")
    return found


def test_the_stories_follow_the_rules_of_english() -> None:
    bad = {story: found for story in STORIES if (found := faults(story))}
    assert not bad


@pytest.mark.parametrize(
    ("story", "fault"),
    [
        ("She had a apple.", "a and an"),
        ("She had an kite.", "a and an"),
        ("He waited for a hour.", "a and an"),
        ("She went to the the well.", "a word twice"),
        ("She went  home.", "two spaces"),
        ('"Come in, said Tom.', "quotation marks do not pair"),
        ("She went home", "a paragraph does not end"),
        ("She went home. he did not.", "a sentence begins small"),
        ('"Come in." she went home.', "a sentence begins small"),
        ('Tom said, "come in."', "speech begins small"),
        ('"Come in" said Tom.', "speech ends without punctuation"),
        ('"Come in." said Tom.', "a full stop before who speaks"),
        ("She saw a [red|blue] kite.", "a mark of the grammar is left over"),
        ("She saw {h}.", "a mark of the grammar is left over"),
        ("She went home .", "space before punctuation"),
        ("She went home.Then she slept.", "no space after punctuation"),
        ("She went home..", "punctuation twice"),
        ("They was happy.", "was and were"),
        ("She have a kite.", "has and have"),
        ("Him went home.", "no subject form"),
        ("She went\nhome.", "a line breaks"),
    ],
)
def test_the_checks_find_each_kind_of_fault(story: str, fault: str) -> None:
    assert fault in faults(story)


def test_the_checks_accept_correct_english() -> None:
    story = 'An hour later Mia had a useful idea. "Yes," said Tom, "but not now." He smiled. "Why?" asked Mia.'
    assert faults(story) == []


def test_the_words_are_those_of_a_small_child() -> None:
    words = {word for story in STORIES for word in re.findall(r"[a-z]+", story.lower())}
    assert 1500 <= len(words) <= 2500


# ---- pronouns ----

HE = re.compile(r"\b(?:he|him|his|himself)\b", re.IGNORECASE)
SHE = re.compile(r"\b(?:she|her|hers|herself)\b", re.IGNORECASE)
# Nouns that a pronoun may refer to. The schemas use no pronouns for nouns without a sex (doctor, teacher).
MALE = re.compile(r"\b(?:man|men|father|brothers?|uncle|boy|king|postman|baker|snowman|Mr)\b")
FEMALE = re.compile(r"\b(?:woman|women|mother|sisters?|aunt|girl|baker|owl|cow|hen|Mrs|Miss)\b")


def pronouns_without_somebody(story: str, cast: list[Person]) -> list[str]:
    """Return each "he" in a story without a male character, and each "she" without a female one."""
    females = any(person.female for person in cast) or FEMALE.search(story)
    males = any(not person.female for person in cast) or MALE.search(story)
    return ([] if males else HE.findall(story)) + ([] if females else SHE.findall(story))


def told_with_cast() -> list[tuple[str, list[Person]]]:
    tellers = [Teller(f"{schema}:{i}") for schema in SCHEMAS for i in range(write_corpus.STORIES_PER_SCHEMA)]
    for teller, schema in zip(
        tellers, [schema for schema in SCHEMAS.values() for _ in range(write_corpus.STORIES_PER_SCHEMA)], strict=True
    ):
        schema(teller)
    return [(teller.text(), teller.cast) for teller in tellers]


def test_every_pronoun_refers_to_a_character() -> None:
    told = told_with_cast()
    assert all(pronouns_without_somebody(story, cast) == [] for story, cast in told)
    one_sex = [story for story, cast in told if len({person.female for person in cast}) == 1]
    assert len(one_sex) > 100  # the stories must contain many pronouns, otherwise the check above would find nothing


def test_the_check_finds_a_wrong_pronoun() -> None:
    mia = Person("Mia", True, "girl")
    assert pronouns_without_somebody("Mia lost his kite.", [mia]) == ["his"]
    assert pronouns_without_somebody("Mia lost her kite.", [mia]) == []


def test_no_two_characters_of_a_story_share_a_name() -> None:
    for _, cast in told_with_cast():
        assert len({person.name for person in cast}) == len(cast)


# ---- the code that writes the stories ----


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        ("an kite and a apple", "A kite and an apple"),
        ("a hour, a honest man, an useful thing", "An hour, an honest man, a useful thing"),
        ("<come in!> said Mia. she smiled.", '"Come in!" said Mia. She smiled.'),
        ("<yes,> said Tom, <but not now.> he went.", '"Yes," said Tom, "but not now." He went.'),
        ("Tom said, <come in.>", 'Tom said, "Come in."'),
        ("<why?> she asked.", '"Why?" she asked.'),
    ],
)
def test_articles_capitals_and_quotation_marks_are_inserted(frame: str, text: str) -> None:
    assert finished(frame) == text


@pytest.mark.parametrize("frame", ["<Come in!", "a ] b", "the {thing}"])
def test_an_unreplaced_placeholder_is_refused(frame: str) -> None:
    with pytest.raises(ValueError):
        finished(frame)


def test_nested_choices_are_all_drawn() -> None:
    teller = Teller("any")
    assert {teller.expand("[a|b[c|d]|]") for _ in range(200)} == {"a", "bc", "bd", ""}


def test_a_frame_is_used_again_only_after_all_others() -> None:
    teller = Teller("any")
    for _ in range(3):
        teller.say("One.", "Two.", "Three.")
    assert sorted(teller.text().split()) == ["One.", "Three.", "Two."]


def test_draws_depend_only_on_the_key() -> None:
    def draws(key: str) -> list[int]:
        draw = Draw(key)
        return [draw.below(1000) for _ in range(20)]

    assert draws("garden:1") == draws("garden:1")
    assert draws("garden:1") != draws("garden:2")
    assert all(0 <= n < 1000 for n in draws("garden:3"))
    assert sorted(Draw("any").some(range(5), 5)) == [0, 1, 2, 3, 4]


# ---- names and pronouns ----

MIA, ANNA, TOM = Person("Mia", True, "girl"), Person("Anna", True, "girl"), Person("Tom", False, "boy")


@pytest.mark.parametrize(
    ("paragraph", "wanted"),
    [
        ("Mia sat down. Mia thought.", "Mia sat down. She thought."),
        ("Mia met Tom. Tom was sad. Mia saw it.", "Mia met Tom. He was sad. She saw it."),
        ('Mia sat down. "Why?" asked Mia.', 'Mia sat down. "Why?" she asked.'),
        # a pronoun would not be clear, so the name is repeated
        ("Mia met Anna. Mia sat down.", "Mia met Anna. Mia sat down."),
        ("Mia met a woman. Mia sat down.", "Mia met a woman. Mia sat down."),
        ('"Hello, Anna!" Tom heard Mia. Mia sat down.', '"Hello, Anna!" Tom heard Mia. Mia sat down.'),
        # the name is not the subject, or not the only subject
        ("Mia sat down. Tom saw Mia.", "Mia sat down. Tom saw Mia."),
        ("Mia sat down. Mia's cat slept.", "Mia sat down. Mia's cat slept."),
        ("Mia met Tom. Mia and Tom sang.", "Mia met Tom. Mia and Tom sang."),
        ('Mia sat down. "Mia is here," said Tom.', 'Mia sat down. "Mia is here," said Tom.'),
        # the name is repeated after two pronouns
        ("Mia sat. Mia ate. Mia read. Mia slept.", "Mia sat. She ate. She read. Mia slept."),
    ],
)
def test_a_pronoun_replaces_a_name_only_if_the_reference_is_clear(paragraph: str, wanted: str) -> None:
    assert with_pronouns(paragraph, [MIA, ANNA, TOM]) == wanted
