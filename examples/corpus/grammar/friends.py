"""Stories between children: quarrels, sharing, truth, promises."""

from __future__ import annotations

from grammar import cast, scenes, words
from grammar.telling import Teller


def quarrel(t: Teller) -> None:
    """Two friends fall out over a thing, and make up."""
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
        f"{h} pulled on one side and {f} pulled on the other. [Crack!|Snap!|Rip!] The {x} was broken.",
        f"<Give it back!> said {h}. <You always have it,> said {f}. Then it fell to the ground and broke.",
        f"They pulled and pushed, and the {x} fell into the [mud|ditch|puddle].",
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
        f"<A {x} can be mended with glue,> said {g}. <A friend is mended with one word. Do you know which?>",
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
        f"Together they [cleaned|mended|glued] the {x}. You could still see [a crack|a mark|where it had been], but they liked it that way.",
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
        f"<What is your name?> asked {h}. <{f},> said the {f.kind}. <And yours?> <{h}.>",
        f"<I am {h},> said {h}. <I am {f},> said the {f.kind}. <Do you want to come in?>",
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


def sharing(t: Teller) -> None:
    """There is too little, or only one."""
    h = cast.child(t)
    f, n = cast.friend(t, h), cast.neighbour(t)
    scenes.meet(t, h)
    food, plenty = t.draw.one(
        (
            ("a round loaf of bread", "bread"), ("a basket of plums", "plums"), ("a big melon", "melon"),
            ("a bag of cherries", "cherries"), ("a warm pie", "pie"), ("a box of biscuits", "biscuits"),
            ("a pot of soup", "soup"), ("a dish of pancakes", "pancakes"),
        )
    )  # fmt: skip
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, {h} got {food} from {n}, because {h.he} had [swept the yard|fed the hens|carried the water].",
        f"{scenes.when(t)}, {n} gave {h} {food}. <This is for you,> {n} said.",
    )
    t.say(
        f"<I will eat it all by myself,> thought {h}, and {h.he} [sat down under a tree|hid behind the barn].",
        f"It smelled so good that {h} wanted to [eat it at once|run home with it|keep it all].",
    )
    t.say(
        f"Just then {f} came by. {f.his} [stomach growled|shoes were muddy], for {f.he} had not eaten since breakfast.",
        f"But just then {f} came along. <What do you have there?> asked {f}, and looked at it with hungry eyes.",
    )
    if t.draw.chance(1, 2):
        t.say(
            f"<It is mine,> said {h} quickly. {f} nodded and walked on.",
            f"<Nothing,> said {h}, and held it behind {h.his} back. {f} went away without a word.",
        )
        t.say(
            f"{h} ate a little. But now the {plenty} tasted of nothing at all.",
            f"Alone, {h} took the first bite. It was good, but there was nobody to tell.",
        )
        t.say(
            f"<Why is it not as good as I thought?> {h} wondered. Then {h.he} got up and ran after {f}.",
            f"{h} remembered how {f} had [lent {h.him} a coat|shared a sandwich with {h.him}] last winter. {h} felt ashamed and ran.",
        )
        t.say(
            f"<Wait, {f}!> called {h}. <I was wrong. Half of it is yours.>",
            f"<{f}!> cried {h}. <Will you eat with me? There is enough for two.>",
        )
    else:
        t.say(
            f"{h} thought of how good it would be to have it all. Then {h.he} thought of {f}. <Sit down,> {h.he} said.",
            f"{h} looked at the {plenty} and looked at {f}. <Are you hungry?> {h.he} asked. <Very,> said {f}.",
        )
        t.say(
            f"So {h} shared the {plenty}: one part for {f} and one part for {h.himself}.",
            f"<One for you and one for me,> said {h}, until it was all shared out.",
        )
    t.paragraph()
    t.say(
        f"They sat [on the wall|on the steps|in the grass] and ate, and {f} told a story that made {h} laugh.",
        "Together they ate until they were full, and there was even a little left for the [birds|ducks|dog].",
    )
    t.say(
        f"<It tastes better now,> said {h}. <Why?> asked {f}. <Because you are here,> said {h}.",
        f"<Half is more than the whole,> said {h}, and {f} did not understand, but {f.he} nodded with a full mouth.",
    )
    t.paragraph()
    t.say(
        f"A week later it was {f} who had something good. {f.he} broke it in two before {h} could ask.",
        f"The next day {f} knocked at the door. {f.he} had brought [six eggs|a pear|some nuts], and half of everything was for {h}.",
        f"{n} had seen it all from the window. The next morning there was another gift on the step, twice as big.",
    )
    t.say(
        f"And {h} never again ate anything good alone if {h.he} could help it.",
        f"Since then {h} says, <A thing that is shared never runs out.>",
        f"<See?> said {h.his} mother. <What you give away comes back with company.>",
    )


def truth(t: Teller) -> None:
    """Something is broken in secret, and it is hard to say so."""
    h, g = cast.child(t), cast.elder(t)
    what = t.one("vase", "cup", "jug", "bowl", "teapot", "flower pot")
    colour = t.one("blue", "white", "old", "best", "green")
    scenes.meet(t, h)
    t.paragraph()
    why = t.one(
        "threw a ball in the house",
        "danced on the table",
        "ran through the room with a stick",
        "wanted to reach the jam",
        "played at being a horse",
        "swung a rope around",
    )
    t.say(
        f"{scenes.when(t)}, when nobody was looking, {h} {why}.",
        f"{scenes.when(t)}, {h} {why}, although {h.he} knew that it was not allowed.",
    )
    t.say(
        f"There was a crash. The {colour} {what} lay in pieces.",
        f"{g}'s {colour} {what} [wobbled|shook], fell and broke.",
        f"Then it happened: {h} hit the {colour} {what}, and it broke into a hundred pieces.",
    )
    t.say(
        f"{h}'s heart [beat fast|stood still]. {h.he} [hid the pieces in a box|swept the pieces under the rug|hid the pieces behind the curtain].",
        f"<Nobody saw me,> thought {h}, and {h.he} hid the pieces in the [shed|ash bin|hay].",
    )
    t.paragraph()
    t.say(
        f"In the evening {g} asked, <Where is my {what}?> {h} said nothing.",
        f"<Who broke the {what}?> asked {g} that evening.",
    )
    p = cast.pet(t, "cat")
    if t.draw.chance(1, 2):
        t.say(
            f"<It was {p},> said {h}, and pointed at the cat. {g} sent {p} out into the cold.",
            f"<Maybe it was {p} the cat,> said {h}, and {h.his} ears turned red. So {p} got no milk that night.",
        )
        t.say(
            f"{p} sat outside and looked in at the window with round eyes. {h} could not [eat|swallow a bite].",
            f"{h} heard {p} crying outside, and every cry hurt.",
        )
    else:
        t.say(
            f"<I do not know,> said {h}. The words tasted like [soap|ashes].",
            f"<Not I,> said {h}, and looked at {h.his} feet.",
        )
        t.say(
            f"At night {h} lay awake. The secret sat on {h.his} chest like a [stone|fat cat].",
            f"{h} could not sleep. The moon looked in, and it seemed to know everything.",
        )
    t.paragraph()
    t.say(
        f"At last {h} got up and went to {g}. <It was me,> {h.he} said. <I {why}.>",
        f"{h} could not bear it any longer. <I broke the {what},> {h.he} said, and began to cry.",
    )
    t.say(
        f"{g} was quiet for a moment. <I was sad about the {what},> said {g}, <but I would be sadder about a lie.>",
        f"<I know,> said {g}. <You know?> <I saw the pieces. I waited for you to tell me.>",
        f"<That was hard to say,> said {g}. <It was,> said {h}. <Then it was brave,> said {g}.",
    )
    t.say(
        f"The next day {h} [worked in the garden|saved {h.his} coins|sold berries] until there was a new {what} on the shelf.",
        f"Together they glued the {what}, piece by piece. It would not hold water, but it could hold [pencils|dried flowers].",
        f"{h} had to sweep the kitchen for a week, and {h.he} did it well, because {h.he} felt light again.",
    )
    t.maybe(
        f"And {p} got a dish of cream and a long excuse, which {p.he} did not understand, but liked.",
        f"{h} told {p} that {h.he} was sorry, and {p} purred.",
    )
    t.say(
        f"<The truth is heavy at first,> said {g}, <but a lie gets heavier every day.>",
        f"That night {h} slept like a stone.",
        f"After that, when something broke, {h} said so at once. It was easier.",
    )


def promise(t: Teller) -> None:
    """A promise is made, and something more pleasant comes between."""
    h, n = cast.child(t), cast.neighbour(t)
    job, tool, thing = t.draw.one(
        (
            ("water the tomatoes", "the watering can", "tomatoes"),
            ("feed the rabbits", "a basket of leaves", "rabbits"),
            ("look after the hens", "a bag of corn", "hens"),
            ("feed the goldfish", "a small tin of food", "goldfish"),
            ("water the roses", "the green can", "roses"),
            ("take milk to the kittens", "a jug of milk", "kittens"),
        )
    )
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"{n} had to go away for [four|five|six] days. <Will you {job} for me?> {n} asked. <I promise,> said {h}.",
        f"<I am going to visit my sister,> said {n}. <Can you {job} every evening?> <Yes,> said {h}. <I promise.>",
    )
    t.say(
        f"On the first day {h} took {tool} and went over at once.",
        f"The first evening it was fun. {h} talked to the {thing} and told them the news.",
    )
    t.say("The second day went well too.", f"On the second day {h} did not forget either.")
    t.paragraph()
    tempt = t.one(
        "a fair came to the village, with a merry-go-round",
        "all the children went down to the river to swim",
        "there was a puppet show in the square",
        "the first snow fell, and everyone went out with sledges" if thing == "rabbits" else "the circus came to town",
    )
    t.say(
        f"But on the third day {tempt}. {h} ran along and forgot everything else.",
        f"But on the third day {tempt}. <Come on, {h}!> called the others, and {h} went.",
    )
    t.say(
        f"Only in bed did {h} remember. <The {thing}!> {h.he} thought. <I promised!>",
        f"It was already dark when {h} thought of the {thing}. {h.his} heart sank.",
    )
    t.say(
        "It was dark and the bed was warm. <Tomorrow is soon enough,> said a small voice. But a promise is a promise.",
        f"<One day will not hurt,> {h} told {h.himself}. But {h.he} could not close {h.his} eyes.",
    )
    t.say(
        f"{h} got up, put on {h.his} boots, and took a lantern. {h.his} father saw the light. <Where are you going?> he asked.",
        f"So {h} woke {h.his} father. <I must go over to {n}'s,> said {h}. <Now?> <Now.> And they went together.",
    )
    t.paragraph()
    t.say(
        f"The {thing} were waiting. <Here I am,> said {h}. <I am late, but I am here.>",
        f"In the light of the lantern {h} saw the {thing}. They looked a little [sad|tired], but it was not too late.",
    )
    t.say(
        f"The stars were out when {h} had finished, and {h.he} saw one fall.",
        f"An owl called, and it was not frightening at all, because {h} had something to do.",
    )
    t.paragraph()
    t.say(
        f"When {n} came home, the {thing} were well. <You kept your promise,> said {n}. <Almost,> said {h}, and told the truth.",
        f"<How were my {thing}?> asked {n}. {h} told {n.him} about the third day. {n} nodded. <You got up in the night. That is what I call a promise.>",
    )
    t.say(
        f"{n} gave {h} [a bag of seeds|a young rabbit|a silver coin|a jar of honey] and [a wink|a handshake, as one gives to a grown-up].",
        f"<I will ask you again next time,> said {n}, and that was the best thanks of all.",
    )


def race(t: Teller) -> None:
    """A race in which winning turns out not to be all."""
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
