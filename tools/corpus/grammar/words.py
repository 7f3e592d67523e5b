"""What there is in the stories' world. Marks as in sentence frames; see telling.py."""

from __future__ import annotations

from grammar.telling import Teller, Thing

COLOURS = ("red", "blue", "green", "yellow", "white", "brown", "purple", "orange")

HOMES = (
    "in a small house by the river",
    "on a farm at the edge of the village",
    "in a flat above the bakery",
    "in a white cottage near the sea",
    "in a tall house on a narrow street",
    "in a stone house under the hill",
    "in a village between two hills",
    "in a busy town with a clock tower",
    "in a wooden house beside the forest",
    "in a little town by the harbour",
)

# Toys and treasures that a child could lose, lend, break or receive, with their looks.
TOYS = (
    ("ball", "[red|blue|yellow|striped]"),
    ("kite", "[red|green|yellow|purple]"),
    ("wooden boat", "[little|blue|white]"),
    ("toy train", "[red|green|black]"),
    ("drum", "[small|red|round]"),
    ("rag doll", "[old|soft|little]"),
    ("teddy bear", "[brown|soft|old]"),
    ("music box", "[tiny|silver|old]"),
    ("paint box", "[new|blue|tin]"),
    ("puppet", "[funny|wooden|old]"),
)
TREASURES = (
    ("hat", "[red|straw|blue|woollen]"),
    ("scarf", "[green|striped|long|woollen]"),
    ("key", "[small|silver|old|brass]"),
    ("button", "[shiny|golden|blue]"),
    ("whistle", "[tin|silver|wooden]"),
    ("ring", "[silver|tiny|golden]"),
    ("book", "[old|thick|blue|picture]"),
    ("lantern", "[small|brass|green]"),
    ("umbrella", "[yellow|red|big]"),
    ("basket", "[little|brown|round]"),
)

TRAITS = ("kind", "quiet", "cheerful", "curious", "brave", "clever", "gentle", "lively", "careful", "thoughtful")

LOVES = (
    "to draw", "to climb trees", "to sing", "to ask questions", "to read", "to run fast", "to collect shells",
    "to look at the stars", "to build things", "to dig holes", "to watch the birds", "to count things",
    "to listen to stories", "to help in the kitchen", "to whistle", "to jump in puddles",
)  # fmt: skip

# Words for the time of day, by weather. Each begins a sentence.
DAYS = "[Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday]"
WHEN = {
    "sunny": (
        "One [bright|sunny|warm|clear|fine] [morning|afternoon|day]",
        f"On a [warm|sunny|bright] {DAYS} [morning|afternoon]",
        "Early one [spring|summer] morning",
        "On the [first|last|hottest] day of summer",
        "One day in [May|June|July|August], when the sky was blue",
    ),
    "cloudy": (
        "One [grey|cool|cloudy|quiet] [morning|afternoon|day]",
        f"On a [grey|cool|quiet] {DAYS} [morning|afternoon]",
        "One day in [spring|autumn]",
        "One [autumn|spring] [morning|afternoon]",
        "Late one afternoon",
    ),
    "rainy": (
        "One [rainy|wet] [morning|afternoon|day]",
        f"On a [wet|rainy] {DAYS} [morning|afternoon]",
        "One day when the rain [tapped on the windows|ran down the glass|fell and fell]",
        "One [April|November] day, when rain [drummed on the roof|filled the gutters]",
    ),
    "windy": (
        "One [windy|breezy] [morning|afternoon|day]",
        f"On a windy {DAYS} [morning|afternoon]",
        "One [March|October] day, when the wind [shook the trees|chased the clouds|rattled the doors]",
        "One [spring|autumn] morning, when the wind was [strong|fresh|wild]",
    ),
    "snowy": (
        "One [snowy|white|frosty|cold] [morning|day]",
        f"On a [snowy|frosty] {DAYS} morning",
        "One [December|January|February] day, when snow lay on every roof",
        "On the coldest day of winter",
    ),
}

SKY = {
    "sunny": (
        "The sun shone on the [roofs|fields|water|grass].",
        "There was not a cloud in the sky.",
        "Bees hummed in the [clover|flowers|garden] and the air smelled of [grass|roses|hay].",
        "It was so warm that even the [cats|dogs|hens] lay in the shade.",
    ),
    "cloudy": (
        "Grey clouds [hung|sat] low over the [hills|roofs|fields].",
        "The air was [cool|still|soft] and smelled of [leaves|earth|smoke].",
        "It did not rain, but the sky [looked|was] as grey as [a dove|a stone|slate].",
    ),
    "rainy": (
        "Rain ran down the windows.",
        "The street was full of puddles.",
        "Water dripped from every [leaf|roof|branch].",
    ),
    "windy": (
        "The wind blew the leaves [round and round|down the street|over the wall].",
        "The trees [bent|bowed] and [whispered|creaked] in the wind.",
        "Clouds raced across the sky.",
    ),
    "snowy": (
        "The snow was deep and [soft|white|bright].",
        "Icicles hung from the [roof|gutters|branches].",
        "Everything was white and very [quiet|still].",
    ),
}

FOODS = (
    "bread and honey", "warm soup", "pancakes", "apple pie", "rice and beans", "bread and cheese", "noodles",
    "potato soup", "plum cake", "porridge", "baked apples", "corn bread",
)  # fmt: skip
SWEETS = ("honey cake", "apple pie", "plum cake", "lemon cake", "ginger cake", "cherry tart", "carrot cake")
DRINKS = ("hot milk", "mint tea", "warm cocoa", "cool lemonade", "apple juice")

JOY = ("happy", "glad", "proud", "very happy", "so happy", "pleased")
SORROW = ("sad", "unhappy", "upset", "very sad")


def toy(t: Teller) -> Thing:
    return _thing(t, TOYS)


def treasure(t: Teller) -> Thing:
    return _thing(t, TREASURES)


def belonging(t: Teller) -> Thing:
    return _thing(t, TOYS + TREASURES)


def _thing(t: Teller, rows: tuple[tuple[str, str], ...]) -> Thing:
    noun, looks = t.draw.one(rows)
    return Thing(noun, t.expand(looks))
