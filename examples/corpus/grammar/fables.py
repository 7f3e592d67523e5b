"""Stories in which the animals talk."""

from __future__ import annotations

from grammar import cast, scenes
from grammar.telling import Person, Teller

_GATHERERS = ("mouse", "squirrel", "hedgehog", "mole", "dormouse", "hamster")


def _once(t: Teller, a: Person) -> None:
    place = t.one(
        "in a wood", "at the edge of a meadow", "under an old beech tree", "by a quiet brook", "on a green hill"
    )
    t.say(
        f"Once there was a {a.kind} named {a} who lived {place}.",
        f"{place} lived a [small|young|cheerful|busy] {a.kind} named {a}.",
        f"Long ago a {a.kind} named {a} had [his|her] home {place}.".replace("[his|her]", a.his),
    )


def small_helps_big(t: Teller) -> None:
    """The small one can do what the big one cannot."""
    a = cast.creature(t, ("mouse", "wren", "mole", "frog", "hedgehog"))
    b = cast.creature(t, ("bear", "stag", "bull", "wolf", "ox", "horse"))
    _once(t, a)
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
        f"<One can never know,> said {a}.",
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
    """Somebody boasts, and has to show it."""
    a = cast.creature(t, ("frog", "rooster", "hare", "magpie", "fox", "beetle"))
    b = cast.creature(t, ("tortoise", "snail", "hedgehog", "sparrow", "mole"))
    _once(t, a)
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
        f"<What can you really do?> asked {b}. {a} thought for a long time. <I can tell a good story,> {a.he} said.",
        f"<What do you like to do when nobody is looking?> asked {b}. <I like to sing,> said {a}. <Then sing,> said {b}.",
    )
    t.say(
        f"That was true. And from then on everyone came in the evening to listen to {a}, and nobody yawned.",
        f"So {a} did it, and this time they clapped, because it was true.",
        f"{a} and {b} became friends. One of them talks and the other one listens, and now and then they change places.",
    )


def winter_store(t: Teller) -> None:
    """One gathers, one does not, and winter comes."""
    a = cast.creature(t, _GATHERERS)
    b = cast.creature(t, ("cricket", "robin", "hare", "jay", "butterfly", "finch"))
    food = t.one("nuts", "seeds", "acorns", "berries", "corn")
    _once(t, a)
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


def moon_lantern(t: Teller) -> None:
    """A young animal wants something that cannot be had."""
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
    _once(t, a)
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
    """A thing goes from one to the other, and comes back changed."""
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
    _once(t, a)
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
    """A young animal does not dare what the others do."""
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
    _once(t, a)
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
        f"<Where do you feel it?> asked {b}. <In my knees,> said {a}. <I have it in my back,> said {b}.",
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
