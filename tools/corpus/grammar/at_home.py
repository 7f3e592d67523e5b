"""Stories in and around the house."""

from __future__ import annotations

from grammar import cast, scenes, words
from grammar.telling import Teller


def lost_thing(t: Teller) -> None:
    """Something is lost, and a person or an idea helps to find it."""
    h, g = cast.child(t), cast.parent(t)
    x = words.belonging(t)
    scenes.meet(t, h)
    t.say(
        f"{h} had {x.a} that {h.his} {t.one('grandmother', 'grandfather', 'aunt')} had given {h.him}.",
        f"Of all {h.his} things, {h} liked {h.his} {x.full} best.",
        f"{h.he} had {x.a} and took it [everywhere|to bed|along on every walk].",
    )
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, the {x} was gone.",
        f"{scenes.when(t)}, {h} looked for {h.his} {x}, but it was not [there|in its place|on the shelf].",
        f"{scenes.when(t)}, {h} could not find the {x.full} anywhere.",
    )
    t.say(
        f"{h} looked [under the bed|behind the door|in the cupboard] and [in the kitchen|under the stairs|on the wall].",
        f"{h.he} looked in every drawer and under every [chair|pillow|blanket].",
        f"{h.he} [turned the whole room upside down|emptied every box|crawled under the table], but found only dust.",
    )
    t.say(
        f"<{g}, have you seen my {x}?> asked {h}. <No,> said {g}. <Where did you have it last?>",
        f"<My {x} is gone!> cried {h}. <Let us think,> said {g}. <What did you do yesterday?>",
        f"<What is the matter?> asked {g}. <I have lost my {x},> said {h}. <When did you see it last?> asked {g}.",
    )
    spot, clue = t.draw.one(
        (
            ("under the old apple tree", "I sat under the apple tree and ate my lunch"),
            ("beside the pond", "I went to the pond to look at the ducks"),
            ("in the barn", "I played in the hay"),
            ("behind the garden gate", "I climbed over the gate to pick blackberries"),
            ("on the bench by the well", "I sat on the bench and waited for the postman"),
            ("in the wheelbarrow", "I rode in the wheelbarrow"),
        )
    )
    t.say(
        f"{h} [thought hard|closed {h.his} eyes and thought]. <[Wait|I know|I remember now]!> said {h}. <{clue}.>",
        f"{h} thought [for a while|about the day before]. <{clue},> {h.he} said slowly.",
    )
    t.paragraph()
    match t.draw.below(3):
        case 0:
            t.say(
                f"They went to look, and there was the {x.full}, {spot}.",
                f"{h} ran out at once. There it was, {spot}: the {x.full}!",
                f"So {h} and {g} put on their boots and went to look. The {x} lay {spot}, a little wet, but whole.",
            )
            t.say(
                f"<[I must have put it down|I forgot it] because I was [hungry|in a hurry|thinking of supper],> said {h}.",
                f"{h} held it tight. <I will never lose you again,> {h.he} said to the {x}.",
                f"{h} [hugged|dried|wiped] the {x} and laughed.",
            )
        case 1:
            p = cast.pet(t, t.one("dog", "cat"))
            t.say(
                f"They looked {spot}, but the {x} was not there. Only {p} the {p.kind} was there, [asleep|looking guilty].",
                f"But {spot} they found only {p} the {p.kind}, [curled up|lying very still], and no {x}.",
            )
            t.say(
                f"<Get up, {p},> said {h}. And what was under {p}? It was the {x.full}!",
                f"{p} got up and stretched, and there, under {p.him}, was the {x.full}.",
            )
            t.say(
                f"<You wanted a bed that smells of me,> said {h}, and {h.he} was not cross, because {p} was so [warm|soft].",
                f"{g} laughed. <{p} kept it warm for you,> {g} said.",
                f"<[Silly|Funny|Clever] {p}!> said {h}, and {g} laughed too.",
            )
        case _:
            f = cast.friend(t, h)
            t.say(
                f"But {spot} there was nothing. On the way back they met {f}, who had {x.a} in {f.his} hands.",
                f"They looked {spot}, but it was not there. Then {f} came up the path with {x.a}.",
            )
            t.say(
                f"<I found this {spot},> said {f}. <Is it yours?>",
                f"<Does this belong to you?> asked {f}. <It was lying {spot}, all alone.>",
            )
            t.say(
                f"<Yes! Thank you, {f}!> cried {h}. <You could have kept it, but you did not.>",
                f"<It is mine,> said {h}, <[and I am so glad|and I have looked for it everywhere]! Shall we play with it together?>",
            )
            t.say(
                f"<It is no fun to keep what somebody else misses,> said {f}.",
                f"{f} smiled, because it feels good to make somebody happy.",
                f"So {h} found {h.his} {x}, and a [new friend|friend] as well.",
            )
    t.paragraph()
    t.say(
        f"From then on {h} put the {x} [on the same shelf|in the same place|beside {h.his} bed] every night.",
        f"That evening the {x} was back [in its place|on the shelf|beside the bed].",
        f"And before {h} went to sleep, {h.he} looked once more to see if the {x} was still there. It was.",
    )


def mended(t: Teller) -> None:
    """A broken thing is repaired instead of thrown away."""
    h, g = cast.child(t), cast.grandparent(t)
    what, break_, part, fix, use = t.draw.one(
        (
            ("rake", "the handle cracked", "a new handle of ash wood", "cut and smoothed it", "raked the whole yard"),
            ("chair", "one leg came off", "a piece of oak", "glued it in", "sat down on it to eat"),
            ("clock", "it stopped ticking", "a tiny wheel", "put it in with a pin", "heard it strike twelve"),
            ("cart", "a wheel broke", "a round board", "nailed it on", "pulled a load of wood home in it"),
            ("lamp", "the glass fell out", "a clear jar", "fitted it with wire", "read by its light"),
            ("bucket", "the bottom fell out", "a sheet of tin", "hammered it flat", "fetched water in it"),
            ("kite", "the paper tore", "a strip of cloth", "sewed it on with small stitches", "flew it on the hill"),
            ("boat", "it sprang a leak", "some tar and a plank", "closed the hole", "sailed it across the pond"),
            ("fiddle", "two strings snapped", "two strings from the old box", "tuned them", "played a dance on it"),
        )
    )
    adjective = t.one("old", "green", "little", "old brown", "good old")
    scenes.meet(t, h)
    t.say(
        f"At home there was a {adjective} {what}, and {h} [liked|used] it almost every day.",
        f"{h} often [borrowed|used] the {adjective} {what} that belonged to {g}.",
        f"In the shed stood a {adjective} {what} that was older than {h}.",
    )
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, just as {h} [took it out|was using it|picked it up], {break_}.",
        f"{scenes.when(t)}, {h} was [too quick|not careful|in a hurry], and {break_}.",
    )
    if t.draw.chance(1, 2):
        t.say(
            f"<I have broken it,> said {h} [in a small voice|and looked at the floor]. <Are you angry?>",
            f"At first {h} wanted to hide it. But then {h.he} went to {g} and said, <I broke the {what}. I am sorry.>",
        )
        t.say(
            f"<No,> said {g}. <Old things break. You told me, and that is what counts.>",
            f"{g} was not angry. <It was old, and you are honest,> said {g}.",
        )
    else:
        t.say(
            f"<Now we must throw it away,> said {h}. <Throw it away?> said {g}. <Not so fast!>",
            f"<Can we buy another one?> asked {h}. <We can,> said {g}, <[but first|but before that] let us look at it.>",
            f"<It is no good any more,> said {h} sadly. <Broken is not the same as dead,> said {g}.",
        )
    t.say(
        f"{g} put on {g.his} glasses and [turned the {what} over|looked at it from all sides|tapped it here and there].",
        "Together they carried it to the workbench.",
        f"{g} looked at it for a long time and said, <Hm.>",
    )
    t.paragraph()
    t.say(
        f"<What do we need?> asked {g}. {h} looked closely. <We need {part},> {h.he} said.",
        f"<We need {part},> said {g}. <Do you know where we could find that?> {h} did.",
        f"They searched [in the shed|in the attic|in three boxes] until they found {part}.",
    )
    t.say(
        f"{g} showed {h} how to hold it, and {h} {fix}.",
        f"<You do it, and I will watch,> said {g}. So {h} {fix}, and {g} only [helped a little|nodded].",
        f"{g} held the {what} still, and {h} {fix}.",
    )
    t.maybe(
        "It took the whole afternoon.",
        "The first time it did not hold, so they did it again.",
        f"{h} got [glue|dust|paint] on {h.his} nose, but {h.he} did not mind.",
        f"<Slowly,> said {g}. <A thing that is done slowly stays done.>",
    )
    t.say(
        f"At last the {what} was whole again. {h} {use}.",
        f"When they had finished, {h} {use}, and it worked as well as before.",
        f"<Try it,> said {g}. {h} {use}. <It works!> cried {h}.",
    )
    t.paragraph()
    t.say(
        f"<It is even better than before,> said {h}, <[because now I know it from inside|because we did it].>",
        f"<Now it has a scar,> said {g}, <and a scar is a story.>",
        f"{h} was so proud that {h.he} showed the {what} to everyone who came by.",
        f"After that, whenever something broke, {h} did not say <Throw it away>. {h.He} said, <Let us look at it.>",
    )
    t.maybe(
        f"The {adjective} {what} is still there today.",
        f"And that is why the {adjective} {what} has [one new part|a part that shines].",
    )


def storm(t: Teller) -> None:
    """A stormy night indoors, and something outside."""
    h, g = cast.child(t), cast.elder(t)
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"One night in {t.one('October', 'March', 'November', 'August')} a [great|wild|terrible] storm came.",
        f"One evening the sky turned [black|dark green|as dark as ink], and {g} said, <A storm is coming.>",
        "All day the air had been [heavy|still]. In the evening the storm began.",
    )
    t.say(
        "The wind [howled in the chimney|shook the house|tore at the roof], and thunder [rolled over|rumbled behind] the hills.",
        "Lightning lit up the room, and then came the thunder, [louder|nearer] each time.",
        "Rain beat against the windows, and the lamp [flickered|went out].",
    )
    t.say(
        f"<I am [scared|afraid],> said {h}. <Come and sit by me,> said {g}, and lit a candle.",
        f"{h} crept under the blanket with {g}. <Will it blow the house away?> {h.he} asked. <No,> said {g}. "
        f"<This house is older than you and me together.>",
        f"{h} held {g}'s hand. <Count with me,> said {g}. <When we can count far, the storm is far.>",
    )
    t.paragraph()
    if t.draw.chance(1, 2):
        k = t.one("kitten", "puppy", "lamb", "hen", "little goat")
        colour = t.one("black", "white", "brown", "grey", "spotted")
        sound = {
            "kitten": "mewing",
            "puppy": "whining",
            "lamb": "bleating",
            "hen": "clucking",
            "little goat": "bleating",
        }[k]
        t.say(
            f"Then {h} heard something between two claps of thunder. It was a {sound} at the door.",
            f"<Listen!> said {h}. <Something is out there.> They both heard it: a thin {sound}.",
        )
        t.say(
            f"{h} forgot to be afraid. {h.He} opened the door, and there stood a {colour} {k}, wet through and trembling.",
            f"They opened the door a crack, and a wet {colour} {k} slipped in.",
        )
        t.say(
            f"{h} rubbed it dry with a towel and [held it close|put it by the stove|gave it some warm milk].",
            f"<You poor thing,> said {h}, and wrapped the {k} in {h.his} own [blanket|scarf|coat].",
        )
        t.say(
            f"The thunder still rumbled, but {h} did not hear it, because {h.he} was busy with the {k}.",
            f"Whenever it thundered, the {k} shook, and {h} said, <Do not be afraid. It is only noise.>",
        )
        t.paragraph()
        t.say(
            f"In the morning the sky was clean and blue. The {k} [slept|was asleep] in {h}'s lap.",
            f"By morning the storm was over, and the {k} was [warm and dry|hungry and cheerful].",
        )
        owner = cast.neighbour(t)
        t.say(
            f"It belonged to {owner}, who had searched half the night. <You saved it,> said {owner}. <Come and visit it.>",
            f"Nobody came to ask for it, so the {k} stayed, and {h} named it Thunder.",
            f"{owner} came to the door and asked, <Have you seen a {colour} {k}?> {h} held it up and smiled.",
        )
    else:
        n = cast.neighbour(t)
        t.say(
            f"Suddenly there was a knock at the door. It was {n}, as wet as a fish.",
            f"Then somebody knocked three times. {g} opened, and in came {n} with {n.his} hat full of water.",
        )
        t.say(
            f"<The wind took [part of my roof|two of my windows|my chimney],> said {n}. <May I stay here tonight?>",
            f"<A tree fell [across my door|on my shed],> said {n}. <I saw the light in your window.>",
        )
        t.say(
            f"<Of course,> said {g}, and {h} [ran to get a dry blanket|moved over on the bench|put wood on the fire].",
            f"<Come in, come in!> said {h}. <You can have my chair. It is the nearest to the fire.>",
        )
        scenes.meal(t, g, n, h)
        t.say(
            f"{n} told stories about [the sea|great storms of long ago|a ship with green sails], and {h} forgot the thunder.",
            f"{n} knew a song about the wind with [twelve|nine] verses, and they sang it louder than the storm.",
        )
        t.paragraph()
        t.say(
            f"The next day they all went to {n}'s house and [mended what was broken|carried the branches away|cleaned up].",
            f"In the morning the sun came out, and {h} helped {n} to pick up what the wind had thrown about.",
        )
    t.say(
        f"<I think I like storms,> said {h}, <when I am not alone in them.>",
        f"After that night {h} was not [so afraid|afraid] of thunder any more.",
        f"<A storm makes a noise,> said {g}, <but it always goes away again.>",
        f"When the next storm came, it was {h} who lit the candle.",
    )
