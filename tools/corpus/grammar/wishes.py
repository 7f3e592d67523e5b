"""Stories in which the animals talk, about wishes, lending and courage."""

from __future__ import annotations

from grammar import cast, scenes
from grammar.telling import Teller


def moon_lantern(t: Teller) -> None:
    """A young animal wants something that it cannot have."""
    a = cast.creature(t, ("fox", "rabbit", "owl", "badger", "otter", "mouse"))
    b = cast.creature(t, ("tortoise", "heron", "toad", "stork", "goose"))
    wish, tries, end = t.draw.one(
        (
            ("the moon", ("a ladder of reeds", "a long leap from the hill", "a net on a stick"),
             "It is everybody's lamp, and it has to light the way for the others too"),
            ("the rainbow", ("a basket", "a fast run over the fields", "a pot with a lid"),
             "It is only there because you are here to see it"),
            ("a star", ("a fishing rod", "a tall pine", "a kite of leaves"),
             "It has been travelling for a thousand years only to reach your eyes. It is yours already"),
            ("the echo", ("a bag", "a friendly call", "a box with holes"),
             "It says only what you say to it. So tell it something kind"),
            ("the wind", ("a sack", "a closed door", "a jar with a cork"),
             "It is only wind as long as it may go on"),
        )
    )  # fmt: skip
    scenes.once(t, a)
    t.say(
        f"{a} had everything a {a.kind} needs. But {a} wanted {wish}.",
        f"Every day {a} {'listened to it' if wish in ('the echo', 'the wind') else 'looked up'} and thought, <I must have {wish}.>",
    )
    t.paragraph()
    first, second, third = tries
    t.say(
        f"First {a} tried it with {first}. It did not work.",
        f"<I will catch it with {first},> said {a}, and worked the whole day. In the evening {a} had nothing but [scratches|wet feet].",
    )
    t.say(
        f"Then {a} tried it with {second}, and fell into the [brambles|brook|nettles].",
        f"The next time it was {second}. That did not help either.",
    )
    t.maybe(
        f"<What are you doing?> asked the sparrows. <Nothing that you would understand,> said {a}.",
        f"<You are silly,> said the others. {a} did not listen.",
        f"{a}'s mother only shook her head and put a plaster on the scratch.",
    )
    t.say(
        f"In the end {a} tried {third}. For a moment it seemed to work. But when {a} looked, there was nothing inside."
        if third.startswith(("a net", "a pot", "a box", "a jar")) else
        f"In the end {a} tried {third}, and that was the worst of all.",
        f"Even {third} was no good. {a} sat down and cried.",
    )  # fmt: skip
    t.paragraph()
    t.say(
        f"Old {b} the {b.kind} had seen it all. <What do you want it for?> asked {b}.",
        f"<Why are you crying?> asked {b}, a very old {b.kind}. {a} told the whole story.",
    )
    t.say(
        f"<I want it to be mine,> said {a}. <I see,> said {b}. <And then?> {a} did not know.",
        f"<I only want to have it near me,> said {a}. <But it is near you,> said {b}.",
    )
    t.say(f"<Listen,> said {b}. <{end}.>", f"{b} was silent for a while. <{end},> said {b} then.")
    t.say(
        f"{a} thought about that until it was quite dark.",
        f"<Then I do not need to catch it at all?> asked {a}. <No,> said {b}. <You only need to come here now and then.>",
        "They sat side by side and did not say anything more, because nothing was missing.",
    )
    t.paragraph()
    t.say(
        f"Since then {a} comes to the same place every evening. There is room for two, and often there are three.",
        f"{a} went home. {first.replace('a ', 'the ', 1)} is still lying in the grass, and the ants live in it.",
        f"<Did you get it?> asked {a}'s mother. <Yes,> said {a}. <I left it where it is.>",
    )


def borrowed(t: Teller) -> None:
    """A thing is lent and comes back changed."""
    a = cast.creature(t, ("mouse", "rabbit", "hedgehog", "squirrel", "mole"))
    b = cast.creature(t, ("badger", "otter", "duck", "raven"))
    c = cast.creature(t, ("hare", "toad", "stork", "beaver"))
    thing, use1, use2 = t.draw.one(
        (
            ("pot", "cook soup for the sick", "catch the rain that came through the roof"),
            ("ladder", "pick the last pears", "get a kitten down from a tree"),
            ("lantern", "look for a lost child", "show the boats the way in the fog"),
            ("blanket", "wrap a newborn lamb", "make a sail for a little boat"),
            ("basket", "carry eggs to market", "rock a baby to sleep"),
            ("rope", "pull a cart out of the mud", "hang up a swing"),
            ("wheelbarrow", "move house", "take an old uncle to the fair"),
        )
    )
    scenes.once(t, a)
    t.say(
        f"{a} had a {thing}, and it was the only one far and wide.",
        f"The best thing {a} owned was a {thing}, a present from {a.his} grandmother.",
    )
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, {b} the {b.kind} knocked. <May I borrow your {thing}?> asked {b}. <I need it to {use1}.>",
        f"<Could you lend me the {thing}?> asked {b} the {b.kind} one day. <I must {use1}.>",
    )
    t.say(
        f"{a} did not like to give it away. <Will you bring it back?> asked {a}. <As soon as I am done,> said {b}.",
        f"<Be careful with it,> said {a}, and looked after it until {b} was out of sight.",
    )
    t.say(
        f"A day went by, and two, and three. The {thing} did not come back.",
        f"A week later it was still not there. <I knew it,> said {a}.",
    )
    t.say(
        f"So {a} went to {b}. <Where is my {thing}?> <I have lent it to {c},> said {b}, <who had to {use2}.>",
        f"{a} marched to {b}'s house. But {b} did not have it any more. {c} the {c.kind} had it, to {use2}.",
    )
    t.paragraph()
    t.say(
        f"{a} grew red with anger. <It is my {thing}!> {a.he} cried, and ran to {c}.",
        f"<Nobody asked me,> said {a}, and stamped all the way to {c}'s place.",
    )
    t.say(
        f"But when {a} saw how they were using it, {a.he} stopped at the fence and grew quiet.",
        f"{c} was just putting it to use, and all around stood others, and they looked happy. {a} forgot to shout.",
    )
    t.say(
        f"<You must be {a},> said {c}. <Everybody here is talking about you. You are the one with the good {thing}.>",
        f"<There you are!> cried {c}. <Without your {thing} we would have been lost.>",
    )
    t.say(
        f"{a} did not know what to do with all the anger, so {a.he} swallowed it. It was smaller than {a.he} had thought.",
        f"<Keep it until you are done,> {a} heard a voice say, and it was {a.his} own.",
    )
    t.paragraph()
    t.say(
        f"In autumn the {thing} came back. It was cleaner than before, and inside lay [honey|nuts|a letter with many paw prints]."
        if thing in ("pot", "basket", "wheelbarrow") else
        f"In autumn the {thing} came back. It was as good as before, and with it came a jar of honey.",
        f"When the {thing} came home, it had [a spot|a mark] that {a} did not know, and a story to go with it.",
    )  # fmt: skip
    t.say(
        f"And when {a} was in need of something that winter, there were three doors to knock at.",
        f"<A {thing} in the corner is only a {thing},> {a} used to say later. <A {thing} on the road is a friend.>",
        f"<May I borrow it again?> asked {b} in spring. <Only,> said {a}, <if I may come along.>",
    )


def big_leap(t: Teller) -> None:
    """A young animal is afraid to do what the others do."""
    a = cast.creature(t, ("young swallow", "duckling", "young squirrel", "young frog", "little bat", "young goat"))
    kin = a.kind.split()[-1]
    do, place, word = {
        "swallow": ("fly", "on the edge of the nest", "fall"),
        "duckling": ("jump into the water", "on the bank of the pond", "sink"),
        "squirrel": ("leap to the next tree", "on the longest branch", "fall"),
        "frog": ("jump across the ditch", "on a leaf", "land in the mud"),
        "bat": ("let go of the beam", "under the barn roof", "bump into the dark"),
        "goat": ("leap over the gap", "on the high rock", "slip"),
    }[kin]
    b = cast.creature(t, ("snail", "beetle", "wren", "spider", "moth"))
    scenes.once(t, a)
    t.say(
        f"All {a.his} brothers and sisters could {do}. {a} sat {place} and watched.",
        f"It was time to {do}. One after another did it, and only {a} was left {place}.",
    )
    t.paragraph()
    t.say(
        f"<Come on!> called the others. <It is easy!> <For you,> said {a}.",
        f"<Tomorrow,> said {a} on Monday. <Tomorrow,> said {a} on Tuesday.",
        f"<What if I {word}?> asked {a}. <And what if you do not?> asked {a.his} mother.",
    )
    t.say(
        f"{a} looked down, and {a.his} stomach turned.",
        f"{a} closed {a.his} eyes, counted to three, and stayed where {a.he} was.",
    )
    t.say(
        f"A {b.kind} named {b} came by. <May I sit here?> asked {b}. <I am waiting as well.> <What for?> asked {a}. <For courage,> said {b}.",
        f"Next to {a.him} sat {b} the {b.kind}. <Are you afraid too?> asked {a}. <Always,> said {b}. <I only do not let it steer.>",
    )
    t.maybe(
        f"After a while {b} asked, <Where do you feel it?> <In my knees,> said {a}. <I have it in my back,> said {b}.",
        f"They talked about other things, about [the rain|flies|the shape of clouds], and it did {a} good.",
    )
    t.paragraph()
    match t.draw.below(3):
        case 0:
            t.say(
                "Then they heard a cry. The smallest sister had got into trouble, over there, on the other side.",
                "Suddenly the youngest of them called for help. A cat was creeping through the grass.",
            )
            t.say(
                f"{a} did not think at all. {a.he} did what {a.he} had never dared, and was there before the fear could catch up.",
                f"<I am coming!> cried {a}. And only when it was over did {a.he} notice what {a.he} had done.",
            )
        case 1:
            t.say(
                f"<We could do it in small pieces,> said {b}. <First only lean forward.> {a} leaned forward.",
                f"<Today we only look,> said {b}. <Tomorrow we look and breathe.>",
            )
            t.say(
                f"On the fourth day there was no piece left but the last one. And {a} did it.",
                "So they practised, a little more each day, and one morning the little more was the whole.",
            )
        case _:
            t.say(
                f"A gust of wind came and shook the place where they were sitting. <Hold on!> cried {b}. But {a} let go.",
                f"Then a nut fell on {a}'s head, and {a.he} started so much that it happened by itself.",
            )
            t.say(
                "It was not a fall. It was like being carried.",
                "For a moment there was nothing. Then there was everything: air, light and joy.",
            )
    t.say(
        f"<I can do it!> cried {a}. <I can {do}!>",
        f"<Again!> called {a}, and did it eleven times before supper.",
        f"<And?> asked {b}. <It is still there, the fear,> said {a}, <but it is sitting behind me now.>",
    )
    t.paragraph()
    t.say(
        f"That evening {a} was the last one home, because {a.he} could not stop.",
        f"In the night {a} did it once more, in a dream, and there it was even easier.",
        f"And {b}? {b} looked at {a}, took a breath, and went {b.his} own way, a little faster than before.",
        f"The next spring there were new little ones, and one of them sat there and did not dare. {a} sat down beside it. <May I wait with you?> asked {a}.",
    )
