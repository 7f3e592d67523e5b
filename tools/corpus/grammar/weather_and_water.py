"""Stories about a river, fog and snow."""

from __future__ import annotations

from grammar import cast, scenes
from grammar.telling import Teller


def river(t: Teller) -> None:
    """A river must be crossed."""
    h = cast.child(t)
    f = cast.friend(t, h)
    aim, there = t.draw.one(
        (
            ("to pick blackberries on the other side", "The bushes were black with berries"),
            ("to take a basket of eggs to the mill", "The miller was glad of the eggs"),
            ("to visit the old ferryman", "The old ferryman had soup on the fire"),
            ("to bring back a lamb that had run away", "The lamb was standing in the reeds, bleating"),
            ("to see the new foals in the far meadow", "Three foals stood in the grass on thin legs"),
            ("to take a letter to the lighthouse", "The keeper read the letter twice, and smiled"),
        )
    )
    t.say(
        f"{h} and {f} wanted {aim}.",
        f"{scenes.when(t)}, {h} and {f} set out {aim}.",
        f"Two friends, {h} and {f}, set out one morning {aim}.",
    )
    t.say(
        f"They had a [loaf|bag of apples|bottle of water] with them, and {h} carried a [stick|rope|map].",
        "The path went [past the church|through the fields|down the hill], and they sang on the way.",
    )
    t.paragraph()
    t.say(
        "But when they came to the river, the bridge was gone. The [flood|storm] had taken it.",
        "Then they came to the river. There was no bridge, and the water was [wide|fast|brown and loud].",
        "It had rained all night, and the little stream had become a river.",
    )
    t.say(
        f"<What do we do now?> asked {f}. <We could go home,> said {h}. Neither of them wanted to.",
        f"<I can jump over,> said {h}. <You cannot,> said {f}. <Nobody can.>",
        f"<Is it deep?> asked {f}. {h} put in a stick, and the stick did not touch the ground.",
    )
    t.paragraph()
    a, b = (h, f) if t.draw.chance(1, 2) else (f, h)
    match t.draw.below(4):
        case 0:
            t.say(
                "A little way up the river lay a fallen tree, from one side to the other.",
                "They walked along the bank until they found a tree trunk that lay across the water.",
            )
            t.say(
                f"{a} went first, one foot before the other. {b} stayed behind. <I am afraid of the water,> said {b}.",
                f"{a} went over as if it were nothing. But {b} stood still in the middle and could not move.",
            )
            t.say(
                f"<Do not look down,> called {a}. <Look at me.> {b} looked up, and took a step, and then another.",
                f"<Sit down and slide,> called {a}. That looked funny, but {b} came across.",
                f"So {a} went back and held out a hand, and {b} took it and did not let go until they were over.",
            )
        case 1:
            t.say(
                "There were stones in the water, but between the last two there was a gap, too wide for a step.",
                f"<Look, stones,> said {h}. They hopped from one to the next, until there were no more.",
            )
            t.say(
                "So they went back, rolled a big stone down the bank, and pushed it in with all their strength. Splash!",
                f"{f} found a board in the grass, and they laid it over the gap. It [bent|creaked], but it held.",
            )
            t.say(
                "<One, two, three!> they counted, and jumped, and were on the other side.",
                f"{h} held out the stick, {f} took the end of it, and so they came across with only one wet shoe.",
            )
        case 2:
            n = cast.neighbour(t)
            t.say(
                f"Then they saw {n} in a small boat, fishing. <Can you take us over?> called {h}.",
                f"On the other bank sat {n} with a boat. <Hello!> they shouted with both hands at their mouths.",
            )
            t.say(
                f"<I can,> said {n}, <but my oar is broken. Can you row with your hands?> They could.",
                f"<The boat leaks,> said {n}. <One of you must [bail|scoop out the water], and one must row.>",
            )
            t.say(
                f"{h} rowed and {f} scooped with {f.his} hat, and they laughed so much that the boat rocked.",
                f"It was slow, and they got wet, but they came across. {n} gave them a fish for the way.",
            )
        case _:
            t.say(
                "They gathered [planks|dry branches|empty barrels], tied them together with the rope, and made a raft.",
                f"<We will build a raft,> said {h}. In the reeds there was old wood, and {f} knew good knots.",
            )
            t.say(
                f"<Will it carry us both?> asked {f}. <First it must carry a stone,> said {h}. It did.",
                "The first raft fell apart at once. They tied the second one better, crosswise.",
            )
            t.say(
                "They pushed off with a long pole. The river pulled, but they pushed harder, and the raft bumped against the far bank.",
                "In the middle the raft turned around twice like a leaf. They held on, and then it was over.",
            )
    t.paragraph()
    t.say(
        f"{there}. <It was worth it,> said {f}.",
        f"<We did it!> said {h}. {there}.",
        f"{there}. <You are the first who came this way since the rain,> somebody said.",
    )
    t.say(
        "On the way back the water was lower, and they were not afraid at all.",
        "They went home another way, a longer one, because the sun was shining.",
        "They came home in the dark, with wet feet and much to tell.",
    )
    t.say(
        f"<Alone I would have turned back,> said {h}. <Me too,> said {f}.",
        f"<A river is only a wall that moves,> said {h}'s mother when she heard it.",
        f"Since then that place has been called {h}'s Crossing, and there is a new bridge.",
    )


def fog(t: Teller) -> None:
    """The way home is lost in fog, and a sign helps to find it."""
    h = cast.child(t)
    f = cast.friend(t, h)
    g = cast.elder(t)
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"One {t.one('autumn', 'November', 'October')} day {h} and {f} went into the woods to look for [mushrooms|chestnuts|acorns|hazelnuts].",
        f"{h} and {f} climbed the hill to [gather firewood|look for the lost goat|see the wild geese].",
    )
    t.say(
        f"<Be home before dark,> {g} had said.",
        "They went a little farther than they were allowed, and then a little farther still.",
    )
    t.say(
        "Then the fog came. First the hills were gone, then the trees, and then the path.",
        f"White fog rose out of the ground, so thick that {h} could hardly see {h.his} own hands.",
        "All at once everything was grey, and one tree looked like another.",
    )
    t.say(
        f"<Which way is home?> asked {f}. <That way,> said {h}. After a while they came to the same stump again.",
        f"<We are lost,> said {f} in a small voice. <We are not lost,> said {h}. <We only do not know where we are.>",
    )
    t.paragraph()
    t.say(
        f"{f} began to cry. {h} was afraid as well, but {h.he} took {f}'s hand and said, <Let us [think|stand still and listen].>",
        f"{h} remembered what {g} had taught {h.him}: when you are lost, stop and listen.",
    )
    match t.draw.below(4):
        case 0:
            t.say(
                "They held their breath. Far away they heard a stream. <The stream runs past the mill,> they said, and they followed it.",
                f"<Do you hear the water?> asked {h}. <Our stream! It knows the way down.>",
            )
        case 1:
            t.say(
                "Then, very faintly, a bell rang. They went toward it, lost it, stood still, and heard it again.",
                f"<Ding, dong,> it came through the fog. <That is the church,> said {h}. <We must go where it gets louder.>",
            )
        case 2:
            p = cast.pet(t, "dog")
            t.say(
                f"Then they heard barking. It was {p}, {f}'s dog. <Call {p.him}!> said {h}, and {f} whistled.",
                f"Something rustled. It was only {p}, {f}'s dog, who had followed them all the way. <Go home, {p}!> said {f}.",
            )
            t.say(
                f"{p} ran ahead, waited, and ran ahead again, and they held on to {p.his} collar.",
                f"{p} put {p.his} nose to the ground and pulled them along, straight through the bushes.",
            )
        case _:
            t.say(
                f"<Moss grows on the north side,> said {h}, and felt the trunks. <So the village must be over there.>",
                f"<On the way up the wind was in our faces,> said {h}. <So it must be at our backs now.>",
            )
    t.say(
        "They walked slowly, hand in hand, and counted their steps so as not to think of wolves.",
        f"{h} broke a twig at every turn, so that they would not walk in a circle again.",
        "To keep their courage up they sang all the songs they knew, and some of them twice.",
    )
    t.paragraph()
    t.say(
        f"At last they saw a yellow light. It was {g} with a lantern. <There you are!> {g} said.",
        f"Then a wall came out of the grey, and a gate, and it was {h}'s own gate. {g} stood there with a lamp.",
    )
    t.say(
        f"<Are you angry?> asked {h}. <I was afraid,> said {g}. <That looks almost the same.>",
        f"{g} did not scold. {g} only held them, longer than usual.",
    )
    scenes.meal(t, g, h, f)
    t.say(
        f"<How did you find the way?> asked {g}. <We listened,> said {h}.",
        f"The next time they stayed on the path, and {h} had a whistle in {h.his} pocket.",
        "Outside the fog pressed against the windows, but it could not come in.",
    )


def snow(t: Teller) -> None:
    """A day in the snow."""
    h = cast.child(t)
    f = cast.friend(t, h)
    g = cast.elder(t)
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"One morning {h} woke up, and it was strangely quiet. {h.He} ran to the window. Snow!",
        f"In the night it had snowed. When {h} opened the door, the snow came up to {h.his} [knees|ankles].",
        f"{scenes.when(t, 'snowy')}, {h} [pulled on two pairs of socks|put on {h.his} thickest coat] and ran outside.",
    )
    scenes.sky(t, "snowy")
    t.say(
        f"{f} was already there, with a [red nose|sledge|shovel]. <What took you so long?> asked {f}.",
        f"<{f}, come out!> called {h}, and threw a snowball at {f}'s window. Soon there were two of them.",
    )
    match t.draw.below(3):
        case 0:
            t.paragraph()
            name = t.one("Mr White", "Mr Frost", "Old Button", "Captain Cold")
            t.say(
                f"They rolled three big balls and set one on top of the other. <He needs a nose,> said {h}, and got a carrot.",
                f"They built a snowman as tall as {g}, with coal for eyes and a broom for an arm.",
            )
            t.say(f"They named him {name}.", f"<What is his name?> asked {f}. <{name},> said {h}.")
            t.say(
                f"In the evening it grew very cold. <Will he freeze?> asked {h}. <That is what he likes,> said {g}.",
                f"One cold night {h} thought, <He has no hat,> and gave him {h.his} own.",
            )
            t.say(
                f"Then the thaw came. Every day {name} was a little smaller, and {h} grew sad.",
                f"But after a week the sun was warm, and {name} began to lean to one side.",
            )
            t.say(
                f"<Where does he go?> asked {h}. <Into the ground, then into the river, then into the sky,> said {g}. <And next winter he comes back.>",
                f"<Goodbye, {name},> said {h}. <See you next year,> said {f} in a deep voice, and {h} had to laugh.",
            )
            t.say(
                "When only the carrot was left, a hare came and ate it. So everyone got something.",
                f"Where {name} had stood, the first snowdrops came up.",
            )
            t.say(
                f"{h} put the coal in a box, because next winter {name} would need his eyes again.",
                f"<Spring is good too,> said {h}, and went to look for {f}.",
                f"The next winter, when the first flakes fell, {h} ran out and said, <Welcome back, {name}!>",
            )
            return
        case 1:
            t.paragraph()
            t.say(
                f"They pulled the sledge up the hill and flew down, again and again, until {h} noticed that one of {h.his} mittens was gone.",
                f"After an hour {h}'s left hand was cold. {h.his} mitten was gone!",
            )
            t.say(
                f"<It was [red|blue|green],> said {h}. <It was a present, and now I have lost it.> <We will find it,> said {f}.",
                "They followed their own tracks back, past the fence, past the frozen pond, and up the hill.",
            )
            t.say(
                "Other tracks crossed theirs, small ones, like the prints of tiny hands. They led to a hole under a root.",
                "Beside their tracks ran another one, of four small paws. It led to the wood pile.",
            )
            t.say(
                "And there was the mitten. Inside it, rolled up tight, slept a [mouse|dormouse].",
                "The mitten was there. But it was moving! A mouse looked out of the thumb.",
            )
            t.say(
                f"<Shh,> said {h}. <It needs the mitten more than I do.> They went away on tiptoe.",
                f"{h} reached out {h.his} hand, and pulled it back again. <Let it sleep,> {h.he} whispered. <It has no other house.>",
            )
            t.say(
                f"{f} gave {h} one of {f.his} own mittens, and they held the two bare hands in one pocket.",
                f"<And your hand?> asked {f}. <I have another pocket,> said {h}.",
            )
            t.say(
                f"At home {g} asked, <Where is your mitten?> <It is let to a mouse,> said {h}, <until spring.>",
                f"{g} knitted a new one. It did not quite match, and {h} was proud of that.",
            )
        case _:
            n = cast.neighbour(t)
            t.paragraph()
            t.say(
                f"They were on their way to the hill when they saw {n}'s house. No smoke came from the chimney, and the path was deep under snow.",
                f"Then {h} noticed that there were no footprints at {n}'s door, not one.",
            )
            t.say(
                f"<How can {n.he} get out?> asked {f}. <{n.he} cannot,> said {h}. <We must dig.>",
                f"<We could go sledging first,> said {f}. <And {n}?> asked {h}. They fetched two shovels.",
            )
            t.say(
                "They dug and dug. It was hard work, and their breath hung in the air like smoke.",
                f"{h} dug from the gate and {f} dug from the road, until they met in the middle.",
            )
            t.say(
                f"The door opened. <I have no wood left inside,> said {n}, <and I could not get to the shed.> So they carried wood as well.",
                f"<I thought I would have to wait for spring,> said {n}, and wiped {n.his} eyes.",
            )
            scenes.meal(t, n, h, f)
            t.say(
                f"In the afternoon there was still time for the sledge, and {n} stood at the window and waved.",
                f"Then {n} brought an old sledge from the attic. <It was mine,> said {n}. <It is the fastest in the village.> And it was.",
            )
    t.say(
        f"In the evening {h}'s cheeks [glowed|burned], and {h.he} fell asleep over {h.his} soup.",
        "That night it snowed again, softly, over all the tracks.",
        f"<I hope it stays,> said {h} in bed. Outside the flakes were falling, big and slow.",
    )
