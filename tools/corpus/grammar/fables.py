"""Stories in which the animals talk."""

from __future__ import annotations

from grammar import cast, scenes
from grammar.telling import Teller

_GATHERERS = ("mouse", "squirrel", "hedgehog", "mole", "dormouse", "hamster")


def small_helps_big(t: Teller) -> None:
    """The small one can do what the big one cannot."""
    a = cast.creature(t, ("mouse", "wren", "mole", "frog", "hedgehog"))
    b = cast.creature(t, ("bear", "stag", "bull", "wolf", "ox", "horse"))
    scenes.once(t, a)
    t.say(
        f"In the same place lived {b} the {b.kind}, who was [very big|big and proud|the strongest of all].",
        f"{b} the {b.kind} lived there too, and when {b.he} walked by, the ground [shook|trembled].",
    )
    t.paragraph()
    t.say(
        f"<Out of my way,> {b} used to say. <You are so small that I could step on you by mistake.>",
        f"<What are you good for?> asked {b}. <I do not know yet,> said {a}.",
        f"<May I be your friend?> asked {a}. {b} laughed. <A friend must be able to help me. How could you help me?>",
    )
    t.say(
        f"{a} said nothing and went home.",
        f"{a} only smiled a little.",
    )
    t.paragraph()
    deed = {
        "mouse": "gnawed through it, one thread after another",
        "wren": "slipped in between the branches and pulled out the pin",
        "mole": "dug away the earth under it until it came loose",
        "frog": "dived down to where it was tied and loosened the knot",
        "hedgehog": "rolled over it until the cords were cut by the spines",
    }[a.kind]
    t.say(
        f"{scenes.when(t)}, {b} got caught in a net that the hunters had laid between the trees.",
        f"{scenes.when(t)}, {b} stepped into a snare at the water's edge. The more {b.he} pulled, the tighter it became.",
    )
    t.say(
        f"{b} called for help until {b.he} was hoarse. The others heard it, but they were afraid.",
        f"{b} roared, and everyone hid. Only {a} came.",
    )
    t.say(
        f"<Hold still,> said {a}. <You?> said {b}. <Yes, me,> said {a}.",
        f"<It is no use,> said {b}. <You are too small.> <For this one must be small,> said {a}.",
    )
    t.say(f"And {a} {deed}.", f"{a} did not talk any more. {a.He} {deed}.")
    t.say(
        "It took half the night. When the hunters came in the morning, they found nothing but an empty trap.",
        f"At last the trap fell open, and {b} was free. Far away the dogs were already barking.",
    )
    t.paragraph()
    t.say(
        f"<I laughed at you,> said {b}, <and you came all the same. Why?> <Because you were calling,> said {a}.",
        f"<Now I know what you are good for,> said {b}. <So do I,> said {a}.",
        f"{b} bent down very low. <Now I am the one who asks,> said {b}. <May I be your friend?>",
    )
    t.say(
        f"After that {a} often rode on {b}'s back, and from up there {a} could see the whole world.",
        f"When it rained, {a} sat under {b}, where it was dry, and both of them liked the company.",
        f"And when {b} walks through the wood today, {b.he} looks where {b.he} puts {b.his} feet.",
    )


def boaster(t: Teller) -> None:
    """An animal boasts and must prove it."""
    a = cast.creature(t, ("frog", "rooster", "hare", "magpie", "fox", "beetle"))
    b = cast.creature(t, ("tortoise", "snail", "hedgehog", "sparrow", "mole"))
    scenes.once(t, a)
    brag, test, result = t.draw.one(
        (
            ("I can jump over the moon", "The moon is in the pond tonight. Show us",
             "jumped, and came out of the pond with duckweed on {his} head"),
            ("I am not afraid of anything", "Then go into the cave and bring out a stone",
             "went in, heard {his} own echo, and ran out again faster than anyone had ever seen {him} run"),
            ("I can make the sun come up", "Then let it come up tonight, at midnight",
             "called all night until {his} voice was gone, and the sun came up when it always did"),
            ("I know every path in the world", "Then take us to the blue lake",
             "led them around in a circle until they were standing in front of {his} own door"),
            ("I am the fastest of all", "Then run with me to the mill",
             "ran in the wrong direction, because {he} had not asked where the mill was"),
            ("I can carry more than anyone", "Then carry this pumpkin home",
             "lifted it a little, and then sat under it until three others rolled it away"),
        )
    )  # fmt: skip
    result = result.format(his=a.his, him=a.him, he=a.he)
    t.say(
        f"{a} liked to boast. <{brag},> {a.he} told everyone.",
        f"<{brag}!> said {a} every day, in the morning and in the evening.",
    )
    t.say(
        "The others were tired of hearing it.",
        f"At first they all admired {a.him}. Later they only yawned.",
        "The young ones believed it and wanted to see it.",
    )
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, {b} the {b.kind} said, <{test}.>",
        f"There was a quiet {b.kind} named {b}. <{test},> said {b} one day.",
    )
    t.say(
        f"{a} swallowed. <Today I have a cold,> {a.he} said. <We will wait,> said {b}.",
        f"<Nothing is easier,> said {a}, but {a.his} voice was a little thin.",
        f"Everyone came to watch, and {a} could not go back any more.",
    )
    t.say(f"So {a} {result}.", f"{a} took a deep breath. Then {a.he} {result}.")
    t.say(
        "First it was silent. Then somebody giggled, and then the whole wood laughed.",
        "The young ones rolled on the ground with laughter.",
    )
    t.paragraph()
    t.say(
        f"{a} crept under a root and did not come out for two days.",
        f"{a} wished that the earth would open.",
    )
    t.say(
        f"{b} came, slowly, and sat down beside {a.him}. <We did not laugh because you could not do it,> said {b}. <We laughed because you said you could.>",
        f"<Are you angry with me?> asked {b}. <No,> said {a}. <I am angry with my mouth.>",
    )
    t.say(
        f"After a while {b} asked, <What can you really do?> {a} thought for a long time. <I can tell a good story,> {a.he} said.",
        f"Then {b} asked, <What do you like to do when nobody is looking?> <I like to sing,> said {a}. <Then sing,> said {b}.",
    )
    t.say(
        f"That was true. And from then on everyone came in the evening to listen to {a}, and nobody yawned.",
        f"So {a} did it, and this time they clapped, because it was true.",
        f"{a} and {b} became friends. One of them talks and the other one listens, and now and then they change places.",
    )


def winter_store(t: Teller) -> None:
    """One animal stores food, another does not, and winter comes."""
    a = cast.creature(t, _GATHERERS)
    b = cast.creature(t, ("cricket", "robin", "hare", "jay", "butterfly", "finch"))
    food = t.one("nuts", "seeds", "acorns", "berries", "corn")
    scenes.once(t, a)
    t.say(
        f"All summer long {a} gathered {food}, and the store under the roots grew [bigger|higher] and higher.".replace(
            "[bigger|higher] and higher", "fuller every day"
        ),
        f"From early to late {a} carried {food} into the store room.",
    )
    t.say(
        f"{b} the {b.kind} sat in the sun and {'sang' if b.kind in ('cricket', 'robin', 'jay', 'finch') else 'danced'}.",
        f"{b} the {b.kind} had no time for that, because {b.he} was making up songs and dances.",
    )
    t.say(
        f"<Why do you work on such a fine day?> asked {b}. <Because such days come to an end,> said {a}.",
        f"<Come and help me,> said {a}. <Tomorrow,> said {b}, and it was always tomorrow.",
        f"<You will be hungry in winter,> said {a}. <In winter I will think about it,> said {b}.",
    )
    t.paragraph()
    t.say(
        "Then the leaves fell, and one morning everything was white.",
        "Autumn came with wind, and after it came the snow.",
    )
    t.say(
        f"{b} looked for something to eat and found only ice.",
        f"{b} was cold and hungry, and {b.his} songs were frozen.",
    )
    t.say(
        f"In the evening there was a faint knock at {a}'s door. <It is me,> said {b}. <May I come in?>",
        f"{a} was sitting in the warm room when something fell against the door. It was {b}, stiff with cold.",
    )
    if t.draw.chance(1, 2):
        t.say(
            f"<You laughed at me,> said {a}. <Yes,> said {b}. <I was foolish.> {a} looked at the full store, and then at the thin guest.",
            f"{a} thought of the hot days and of {a.his} sore back. <And what did you do in summer?> asked {a}. <I sang,> said {b} very softly.",
        )
        t.say(
            f"<Come in,> said {a}. <But you must pay for your supper.> <I have nothing,> said {b}. <You have your songs,> said {a}.",
            f"<Sit by the fire,> said {a}. <First eat, and then we will talk.>",
        )
        t.say(
            f"So {b} sang and told stories all winter, and the long nights were short.",
            f"{b} sang of the summer, and it became warm in the room, as if the sun were shining under the earth.",
        )
        t.say(
            f"<I had enough to eat in other winters,> said {a}, <but I was always bored.>",
            f"<Now I know what was missing in my store,> said {a}.",
        )
    else:
        t.say(
            f"<Come in quickly,> said {a}, and rubbed {b} warm. <There is enough for two if we are careful.>",
            f"{a} did not ask any questions. {a.He} made room by the fire and filled a bowl.",
        )
        t.say(
            f"But in February the store was almost empty, because two had eaten from it. <That is my fault,> said {b}.",
            f"They counted the {food} every evening. Toward the end there were only seven left.",
        )
        t.say(
            f"Then {b} went out into the snow. {b.He} knew every sunny corner from the summer, and {b.he} found [rose hips|dry berries|the first buds].",
            f"<I know where the rose hips hang,> said {b}. <I sat there when I was singing.> And {b} brought back as much as {b.he} could carry.",
        )
        t.say(
            "So each of them saved the other, and neither had to say thank you.",
            f"<It was good that you looked around in summer,> said {a}. <And that you did not,> said {b}.",
        )
    t.paragraph()
    t.say(
        f"When spring came, they stood at the door together. <What shall we do?> asked {b}. <In the mornings we gather, and in the evenings we sing,> said {a}.",
        f"The next summer {b} carried {food} too, and {a} learned two songs. {a.He} sang them badly and with pleasure.",
        "Since then the two have shared one house, and it is a full house in every way.",
    )
