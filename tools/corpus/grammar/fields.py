"""Stories outdoors: a garden, a kite, a treasure."""

from __future__ import annotations

from grammar import cast, scenes, words
from grammar.telling import Teller


def garden(t: Teller) -> None:
    """A child sows something, and it grows slowly."""
    h, g = cast.child(t), cast.elder(t)
    one, many = t.draw.one(
        (
            ("sunflower", "sunflowers"), ("pumpkin", "pumpkins"), ("bean", "beans"), ("carrot", "carrots"),
            ("melon", "melons"), ("strawberry", "strawberries"), ("pea", "peas"), ("cabbage", "cabbages"),
        )
    )  # fmt: skip
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"One day in spring {g} gave {h} a [paper bag|handful|small box] of seeds. <What will they be?> asked {h}. <{many},> said {g}.",
        f"In April {h} got a small piece of the garden, [no bigger than a bed|between the path and the wall]. <I will grow {many},> said {h}.",
        f"<May I have a garden of my own?> asked {h}. <You may,> said {g}, <if you look after it.> {h} chose {many}.",
    )
    t.say(
        f"{h} dug the earth, picked out the stones, and put the seeds in a row.",
        f"{g} showed {h} how deep a seed must lie: as deep as [a finger|two fingers|a thumb] is long.",
        f"{h} raked the earth until it was as fine as flour, and pressed in the seeds one by one.",
    )
    t.paragraph()
    t.say(
        f"The next morning {h} ran out. There was nothing to see. <When will they come?> {h.he} asked.",
        f"Every morning {h} looked. There was earth, only earth.",
        f"After three days {h} wanted to dig the seeds up again to see what they were doing.",
    )
    t.say(
        f"<Seeds have no clock,> said {g}. <They come when they are ready.>",
        f"<Wait,> said {g}. <I have waited,> said {h}. <Then wait some more,> said {g}.",
        f"<If you dig them up, they must start again from the beginning,> said {g}.",
    )
    t.say(
        f"So {h} watered them [every evening|when it was dry] and waited.",
        f"{h} pulled the weeds, chased away the [sparrows|hens|cat], and waited.",
    )
    t.say(
        "Then, one morning after a warm rain, there were small green [points|leaves|loops] in the earth.",
        f"On the tenth day the first green tip came up, and {h} shouted so loudly that the [hens|neighbours] came running.",
    )
    t.paragraph()
    match t.draw.below(4):
        case 0:
            t.say(
                f"They grew fast. But one morning half of the leaves were gone. <Snails,> said {g}.",
                "All went well until something came at night and ate the leaves. There were silver trails on the ground.",
            )
            t.say(
                f"{h} went out with a lantern, picked the snails up one by one, and carried them to the [ditch|meadow|nettles].",
                f"{h} put a ring of [ashes|sand|egg shells] around each plant, because snails do not like that.",
            )
            t.say(
                f"<They only wanted supper,> said {h}, <but not mine.>",
                "After that the snails ate somewhere else, and everyone was content.",
            )
        case 1:
            t.say(
                "In July no rain fell for three weeks. The leaves hung down like [wet cloth|tired hands].",
                "Then it grew hot. The well was low, and the plants were thirsty.",
            )
            t.say(
                f"{h} carried water from the river, two buckets a day, though it was a long way and {h.his} arms hurt.",
                f"{h} saved the water from {h.his} bath and gave every plant one cup.",
            )
            t.say(
                f"At last it rained, and {h} stood in the middle of it with open arms.",
                f"On the last day of the month clouds came up, and the first drops fell on {h}'s nose.",
            )
        case 2:
            f = cast.friend(t, h)
            t.say(
                f"One day {f} ran after a ball and stepped right on the plants.",
                f"Then {f}, who lived next door, let the goat out by mistake, and the goat liked young leaves.",
            )
            t.say(
                f"<My {many}!> cried {h}. {f} turned red. <I am so sorry,> said {f}. <I will help you to make it good.>",
                f"{h} wanted to be angry, but {f} was already crying. <We can save some,> said {h}.",
            )
            t.say(
                "They tied the bent ones to sticks, and sowed new ones where there was a hole.",
                f"Together they built a little fence, and from then on {f} watered the plants as well.",
            )
        case _:
            t.say(
                "All but one of them stayed small. That one climbed and swelled and grew, as if it were in a hurry.",
                "The smallest one stood in the shade of the wall. <That one will never be anything,> said the neighbours.",
            )
            t.say(
                f"{h} talked to it every day. <You can do it,> {h.he} said.",
                f"{h} gave it a little more water than the others, and told it good night.",
            )
    t.paragraph()
    t.say(
        f"At the end of summer {h} picked the first {one}. It was [small|big|crooked], but it was {h.his} own.",
        f"In September there were so many {many} that {h} gave some to everyone in the street.",
        f"Late in summer {h} stood in the garden and counted: [twelve|twenty|nineteen|thirty-one] {many}.",
    )
    t.say(
        f"<Who made this?> asked {g}. <The sun did,> said {h}, <and the rain. I only waited.>",
        f"<What was the hardest part?> asked {g}. <The waiting,> said {h}.",
        f"<Now you are a gardener,> said {g}, and they shook hands, though both hands were full of earth.",
    )
    t.maybe(
        f"{h} kept a few seeds in a matchbox, for next year.",
        f"Before the snow came, {h} put some seeds away, because a garden never really ends.",
    )


def kite(t: Teller) -> None:
    """A kite flies away, or will not fly at all."""
    h, g = cast.child(t), cast.elder(t)
    f = cast.friend(t, h)
    colour = t.draw.one(words.COLOURS)
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"{scenes.when(t, 'windy')}, {h} made a {colour} kite out of [paper|an old sheet|silk] and two thin sticks.",
        f"{scenes.when(t, 'windy')}, {g} and {h} built a {colour} kite with a long tail of [ribbons|paper bows|rags].",
        f"{h} had a {colour} kite. {scenes.when(t, 'windy')}, {h.he} took it up the hill.",
    )
    scenes.sky(t, "windy")
    match t.draw.below(3):
        case 0:
            t.say(
                f"{h} ran and ran, but the kite only [hopped over the grass|dived like a duck|fell on its nose].",
                "The kite rose a little, turned over twice, and fell into the [grass|heather].",
            )
            t.say(
                f"<It does not want to fly,> said {h}. <It wants to,> said {g}, <but it does not know how. What is missing?>",
                f"<Maybe it is too heavy,> said {f}, who had come to watch. <Or the tail is too short,> said {h}.",
            )
            t.say(
                "They made the tail longer, and tried again. It was better, but not good.",
                "They moved the string a little higher, because the kite had looked at the ground and not at the sky.",
            )
            t.say(
                f"<Do not pull,> said {g}. <Let the wind do it.> {h} held still, and felt a tug.",
                f"<Hold it up for me,> said {h}, and {f} held it high. <Now!>",
            )
            t.say(
                f"Up went the {colour} kite, up and up, until it was no bigger than a [stamp|leaf|butterfly].",
                "And then it flew. It stood in the sky and shook its tail at them.",
            )
        case 1:
            t.say(
                f"The kite flew so well that {h} let out all of the string. Then there was a jerk, and the string broke.",
                f"It flew higher than the church tower. But a [gust of wind|strong gust] came, and the string slipped through {h}'s fingers.",
            )
            t.say(
                f"<Come back!> cried {h}. The kite sailed away over the [wood|river|roofs].",
                f"{h} ran after it, through the [stubble|nettles|stream] and over two fences.",
            )
            t.say(
                "It hung in the top of a tall [oak|pine|poplar], where nobody could reach it.",
                f"At last {h} saw something {colour} in the top of a tree. It was far too high.",
            )
            t.say(
                f"<I can climb,> said somebody. It was {f}, from the farm. {f.he} went up like a squirrel.",
                f"A {f.kind} stood under the tree. <Is that yours?> {f.he} asked. <I am {f}. I have climbed higher trees than this.>",
            )
            t.say(
                f"<Be careful!> called {h}. The branch bent, the leaves shook, and the kite came sailing down.",
                f"{f} loosened the string from the twigs, one loop at a time, and let the kite float down.",
            )
            t.say(
                f"<Thank you,> said {h}. <Do you want to fly it?> <May I?> asked {f}, and {f.his} eyes shone.",
                f"It had a hole, but {f} knew how to mend it with [a leaf and some glue|flour paste and paper].",
            )
        case _:
            t.say(
                f"On the hill {h} met {f}, who sat in the grass and only watched. <Do you have no kite?> asked {h}. <No,> said {f}.",
                f"{f} was on the hill too, but {f.his} kite had been torn by the wind, and {f.he} was close to tears.",
            )
            t.say(
                f"{h} held {h.his} string and thought. It is fun to fly a kite. But it is hard to watch somebody who has none.",
                f"{h} looked up at {h.his} kite, and then at {f}.",
            )
            t.say(
                f"<Take the string,> said {h}. <I will run beside you and call out when the wind turns.>",
                f"<We can take turns,> said {h}. <You fly it until the cloud has gone by, and then it is me.>",
            )
            t.say(
                f"{f} held on with both hands. <It pulls like a [pony|fish|big dog]!> {f.he} shouted.",
                f"<I can feel the wind in my fingers!> cried {f}.",
            )
            t.say(
                f"So the {colour} kite flew all afternoon, and two children ran under it.",
                "They flew it until their noses were cold and their shoes were full of grass.",
            )
    t.paragraph()
    t.say(
        "When the wind went to sleep, they rolled up the string and walked home together.",
        f"In the evening {h} hung the kite over {h.his} bed, where it moved a little whenever the window was open.",
        f"<What did it see up there?> asked {g} at supper. <All of us,> said {h}, <and we were very small.>",
    )
    t.say(
        f"<Tomorrow we will make one for you,> said {h} to {f}, <a {t.draw.one(words.COLOURS)} one.>",
        f"<If the wind comes back tomorrow,> said {h}, <I will be ready.>",
        f"{h} dreamed that {h.he} was a kite, and that somebody kind was holding the string.",
    )


def treasure_hunt(t: Teller) -> None:
    """A note leads to another note, or a map to a small treasure."""
    h = cast.child(t)
    f, g = cast.friend(t, h), cast.grandparent(t)
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, {h} found a [folded|yellow|crumpled] paper in [an old book|a bottle|a coat of {g}'s]. It was a map!",
        f"{scenes.when(t)}, {h} and {f} were playing in the attic. In a chest lay a map with a red cross on it.",
    )
    a, b, c = t.draw.some(
        (
            "the split oak", "the stone lion", "the old well", "the broken mill", "the tall birch",
            "the scarecrow", "the boat house", "the white gate", "the hollow tree", "the bell tower",
        ), 3,
    )  # fmt: skip
    n1, n2 = t.one("ten", "twelve", "twenty", "seven"), t.one("thirty", "fifteen", "forty", "nine")
    t.say(
        f"<Start at {a},> {f} read. <Go {n1} steps to {b}. Then {n2} steps to {c}. Dig there.>",
        f"It showed {a}, {b} and {c}, and little footprints between them.",
    )
    t.say(
        f"<Gold!> said {f}. <Or diamonds,> said {h}. They took a spade and ran.",
        f"<Shall we tell somebody?> asked {f}. <Not yet,> said {h}. <First we must see if it is true.>",
    )
    t.paragraph()
    t.say(
        f"{a} was easy to find. They counted {n1} steps, but they did not come to {b}.",
        f"From {a} they took {n1} steps and stood in the middle of a [puddle|bush|cabbage bed].",
    )
    t.say(
        f"<Whose steps did they count?> asked {h}. <Big ones! We must take longer steps.>",
        f"<Our legs are too short,> said {f}. So they took giant steps, and fell over laughing.",
    )
    t.say(
        f"Now it was right. They came to {b}, and from there to {c}.",
        f"At {b} they had to [wait until a bull had gone by|chase away three geese], and then they went on to {c}.",
    )
    t.say(
        f"{h} dug, then {f} dug, then {h} again. Clunk! The spade hit something hard.",
        "They dug a hole as deep as a bucket. There was a tin box, [red with rust|wrapped in oilcloth].",
    )
    t.paragraph()
    inside = t.one(
        "seven marbles, a pocket knife, and a photograph of a boy and a girl",
        "a tin soldier, a blue feather, and a letter",
        "three shells, a key, and a very old toffee",
        "a wooden horse with three legs and a paper crown",
    )
    t.say(
        f"It held no gold. It held {inside}.",
        f"They held their breath and opened the box. In it lay {inside}.",
    )
    t.say(
        f"<Who hid this?> asked {f}. They took it to {g}. {g} looked at it and had to sit down.",
        f"They ran to {g} with the box. <Where did you find that?> asked {g}, and {g.his} voice was very soft.",
    )
    t.say(
        f"<I buried it myself,> said {g}, <when I was as old as you. I forgot where.>",
        f"<That was my treasure,> said {g}. <My brother and I drew the map. He said that nobody would ever find it.>",
    )
    t.say(
        f"All afternoon {g} told them the story of each thing, and that was better than gold.",
        f"Then {g} asked, <Are you sad that it is not gold?> <No,> said {h}. <You cannot ask gold any questions.>",
    )
    t.say(
        f"The next day {h} and {f} filled a box of their own, and buried it, and drew a map for somebody who is not born yet.",
        f"The box stands on {h}'s shelf now, and every now and then {h} puts something new in it.",
        f"<Now we must hide it again,> said {f}, <for the next ones.> And so they did.",
    )
