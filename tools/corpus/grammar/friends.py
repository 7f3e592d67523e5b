"""Stories between children."""

from __future__ import annotations

from grammar import cast, scenes, words
from grammar.telling import Teller


def quarrel(t: Teller) -> None:
    """Two friends quarrel about a thing and become friends again."""
    h = cast.child(t)
    f = cast.friend(t, h)
    x = words.toy(t)
    t.say(
        f"{h} and {f} were [best friends|good friends|neighbours and friends].",
        f"Once there were two friends named {h} and {f}.",
        f"{h} and {f} played together [every day|after school|from morning to night].",
    )
    t.say(
        "They shared [everything|apples and secrets|one bench at school].",
        "When you saw one of them, the other was not far away.",
        "They had a [den behind the shed|secret knock|bridge of boards over the ditch], and nobody else knew it.",
    )
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, {h} brought {x.a}, and both of them wanted to [have it|try it] first.",
        f"{scenes.when(t)}, they were playing with {h}'s {x.full}. <It is my turn now,> said {f}. <No, mine!> said {h}.",
        f"{scenes.when(t)}, {f} took {h}'s {x} without asking.",
    )
    t.say(
        f"{h} pulled on one side and {f} pulled on the other. [Crack!|Snap!] The {x} was broken.",
        f"<Give it back!> said {h}. <You always have it,> said {f}. Then it fell to the ground and broke.",
    )
    t.say(
        f"<Look what you have done!> cried {h}. <It was your fault!> cried {f}.",
        f"<I will never play with you again,> said {f}. <Good!> said {h}.",
        f"<You are mean,> said {h}. <And you are meaner,> said {f}.",
    )
    t.say(
        f"{h} went home by the upper path, and {f} went home by the lower path.",
        "They turned their backs on each other and went home.",
    )
    t.paragraph()
    t.say(
        f"The next day {h} played alone. It was [dull|no fun|very quiet].",
        f"All the next day it rained in {h}'s heart, though the sun was shining.",
        f"{h} tried to play ball with the wall, but the wall never laughed.",
    )
    g = cast.elder(t)
    t.say(
        f"<Where is {f}?> asked {g}. <I do not know and I do not care,> said {h}. But it was not true.",
        f"<You look like a wet hen,> said {g}. <What happened?> And {h} told {g.him}.",
    )
    t.say(
        f"<What do you miss more,> asked {g}, <the {x} or {f}?> {h} did not have to think long.",
        f"<Who was right?> asked {h}. <Maybe both of you, and maybe neither,> said {g}. <But somebody must go first.>",
        f"<A {x} can be mended with [thread|glue],> said {g}. <A friend is mended with one word. Do you know which?>",
    )
    t.paragraph()
    if t.draw.chance(1, 2):
        t.say(
            f"So {h} went to {f}'s house. At the corner {h.he} bumped into {f}, who was on the way to {h}.",
            f"{h} ran out of the gate, and who came up the street? It was {f}.",
        )
        t.say(
            "<I am sorry,> they both said at the same time, and then they had to laugh.",
            f"<I came to say sorry,> said {f}. <So did I!> said {h}.",
        )
    else:
        t.say(
            f"{h} took a pencil, wrote <Sorry> on a piece of paper, and pushed it under {f}'s door.",
            f"{h} put half of {h.his} [cake|apple|biscuits] in a paper bag and laid it on {f}'s step.",
        )
        t.say(
            f"It did not take long. {f} came running. <I am sorry too,> {f.he} said. <I was [selfish|wrong] as well.>",
            f"After a while there was the secret knock at the window. It was {f}. <Friends?> asked {f}. <Friends,> said {h}.",
        )
    t.say(
        f"Together they [mended the {x}|put the {x} together again]. You could still see [a crack|a mark], but they liked it that way.",
        "They made a rule: first one, then the other, and they drew straws for who was first.",
        f"<You may have it first,> said {h}. <No, you,> said {f}. It was almost another quarrel!",
    )
    scenes.since_then(t, h, f)


def new_neighbour(t: Teller) -> None:
    """A stranger moves in next door."""
    h = cast.child(t)
    f = cast.friend(t, h)
    scenes.meet(t, h)
    t.say(
        "The house next door had been empty for a [year|long time].",
        f"Next to {h}'s house stood a house with closed shutters. Nobody lived there.",
    )
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, a big [cart|van|truck] stopped in front of it.",
        f"{scenes.when(t)}, somebody opened the shutters.",
    )
    t.say(
        f"{h} watched from the window. Out came a table, a piano, and a {f.kind} with [curly|short|long|dark] hair.",
        f"Two men carried in beds and boxes, and behind them walked a {f.kind} with a [cage|plant|globe] in {f.his} arms.",
    )
    t.say(
        f"<Go over and say hello,> said {h.his} mother. But {h} was too shy.",
        f"{h} wanted to say hello, but {h.he} did not know what to say after that.",
        f"{h} waved. The {f.kind} did not wave back, but looked at the ground.",
    )
    t.paragraph()
    match t.draw.below(3):
        case 0:
            t.say(
                f"The next day a ball flew over the wall and landed in {h}'s [soup|lap|cabbages].",
                f"On the second day a paper plane sailed over the wall and landed at {h}'s feet.",
            )
            t.say(
                f"{h} threw it back. A moment later it came again. So it went, back and forth, until both of them laughed.",
                f"<Is this yours?> called {h}. <Yes,> said a voice. <I cannot throw very well.> <I can show you,> said {h}.",
            )
        case 1:
            t.say(
                f"The next day {h} saw {f.him} sitting on the step all alone, with a sad face.",
                f"On the third day {h} heard somebody crying behind the hedge.",
            )
            t.say(
                f"<What is wrong?> asked {h}. <I do not know anybody here,> said the {f.kind}. <All my friends are far away.>",
                f"<Are you hurt?> asked {h} through the leaves. <No,> said the {f.kind}. <I only miss my old house.>",
            )
            t.say(
                f"<Now you know me,> said {h}.",
                f"<I can show you where the [best plums|frogs|kittens] are,> said {h}. <Then you will like it here.>",
            )
        case _:
            food = t.draw.one(words.SWEETS)
            t.say(
                f"<I do not know what to say,> said {h}. <Then let the cake talk,> said {h.his} father. So they baked a {food}.",
                f"{h} and {h.his} mother baked a {food}, and {h} carried it next door, one slow step after the other.",
            )
            t.say(
                f"{h} knocked. The {f.kind} opened. <This is for you,> said {h}. <It is still warm.>",
                f"The door opened before {h} could knock. <I smelled you coming,> said the {f.kind}, and laughed.",
            )
    t.say(
        f"Then {h} asked, <What is your name?> <{f},> said the {f.kind}. <And yours?> <{h}.>",
        f"The {f.kind} smiled. <I am {f},> {f.he} said. <Who are you?> <I am {h},> said {h}.",
    )
    t.paragraph()
    t.say(
        f"{f} had [a tortoise named Button|a map of the stars|a flute from another land|a hundred stamps], and {h} had never seen one before.",
        f"{f} spoke a little differently, because {f.he} came from [the mountains|the islands|a city far away], and {h} learned new words.",
        f"{h} showed {f} the [well|swing|hollow tree], and {f} showed {h} a game with five stones.",
    )
    t.say(
        "That week they made a [hole in the hedge|ladder over the wall|telephone of tins and string], so that they could talk at any time.",
        f"On Monday they walked to school together, and {h} said to everyone, <This is {f}.>",
        f"When school began, {f} was not afraid, because {h} sat beside {f.him}.",
    )
    t.say(
        "The house next door was not empty any more, and neither was the [afternoon|summer].",
        f"<I wish you had come sooner,> said {h}.",
        f"<Were you shy at first?> asked {f}. <A little,> said {h}. <Me too,> said {f}.",
    )


def race(t: Teller) -> None:
    """A race that shows that winning is not everything."""
    h = cast.child(t)
    f = cast.friend(t, h)
    kind, where, goal = t.draw.one(
        (
            ("the sack race", "across the meadow", "the old gate"),
            ("the sledge race", "down the long hill", "the frozen pond"),
            ("the boat race", "along the shore", "the red buoy"),
            ("the running race", "around the village", "the church door"),
            ("the donkey race", "over the common", "the windmill"),
            ("the egg and spoon race", "from the school to the bridge", "the bridge"),
        )
    )
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"Every year there was {kind} {where}, and this year {h} wanted to win.",
        f"{h} had been last in {kind} [twice|three times]. <This time I will win,> said {h}.",
    )
    t.say(
        f"{h} practised every day, [before breakfast|after school|even in the rain].",
        f"For weeks {h} thought of nothing else.",
    )
    t.say(
        f"{f} practised too. <You are fast,> said {f}. <You too,> said {h}, but {h.he} did not like to say it.",
        f"Only {f} was just as good. They looked at each other from the side.",
    )
    t.paragraph()
    t.say(
        "Then the day came. Flags waved, and the whole village was there. <Ready, steady, go!>",
        f"On the day of the race {h} could not eat any breakfast. The whistle blew, and off they went.",
    )
    t.say(
        f"{h} was in front from the beginning, and {f} was close behind.",
        f"Soon only {h} and {f} were left in front, side by side.",
    )
    t.say(
        f"They could already see {goal}, when {h} heard a cry. {f} had fallen and was holding {f.his} [knee|ankle].",
        f"Not far from {goal}, {f} slipped on a stone and fell hard.",
    )
    if t.draw.chance(2, 3):
        t.say(
            f"{h} looked at {goal}. {h.he} could win now. But then {h.he} turned around.",
            f"<Run!> shouted the people. {h} stopped.",
        )
        t.say(
            f"<Can you stand up?> asked {h}. <You will lose,> said {f}. <I know,> said {h}. <Take my arm.>",
            f"{h} went back and knelt down. <Does it hurt?> <Yes,> said {f}. <Then lean on me,> said {h}.",
        )
        t.say(
            f"Slowly, step by step, they came to {goal} together. Others had passed them long ago, but the people clapped loudest for the two.",
            "They came in last, arm in arm. And still everyone cheered.",
        )
        t.say(
            f"<Why did you turn back?> asked {f}. <Because it is no fun to win against somebody who is lying down,> said {h}.",
            f"<You could have won,> said {f}. <Next year,> said {h}. <Against you, and with two good legs.>",
            f"There was no prize for {h}. But {f} tied {f.his} own blue ribbon around {h}'s arm.",
        )
    else:
        t.say(
            f"{h} ran on and won. There was a [cup|ribbon|medal], and music played. But {h} kept looking for {f}.",
            f"{h} was first. Everyone clapped, but {h} did not feel like a winner.",
        )
        t.say(
            f"{h} found {f} behind the tents. <I heard you fall,> said {h}, <and I ran on. I am sorry.>",
            f"{f} sat in the grass with a wet cloth. <I should have stopped,> said {h}.",
        )
        t.say(
            f"<It is all right,> said {f}. <It is not,> said {h}, and broke the [chocolate|honey cake] that {h.he} had won in two.",
            f"{h} helped {f} home, with {f.his} arm around {h.his} neck, and it was a long way.",
        )
    t.paragraph()
    t.say(
        "The next year they both ran again, and they came in at the very same moment.",
        "After that they practised together, and both became faster.",
        f"Nobody remembers now who won that year. But everyone remembers {h} and {f}.",
    )
