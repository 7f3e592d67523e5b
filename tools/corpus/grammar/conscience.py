"""Stories about sharing, telling the truth, and keeping a promise."""

from __future__ import annotations

from grammar import cast, scenes
from grammar.telling import Teller


def sharing(t: Teller) -> None:
    """There is too little of something, or only one."""
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
        f"Just then {f} came by. {f.his} stomach growled, for {f.he} had not eaten since breakfast.",
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
        f"{scenes.when(t)}, {h} {why}. Nobody was looking.",
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
        f"In the evening {g} asked, <Where is my {what}?> {h} did not answer at once.",
        f"<Who broke the {what}?> asked {g} that evening.",
    )
    p, blamed = cast.pet(t, "cat"), t.draw.chance(1, 2)
    if blamed:
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
    if blamed:
        t.say(
            f"And {p} got a dish of cream and a long excuse, which {p.he} did not understand, but liked.",
            f"{h} told {p} that {h.he} was sorry, and {p} purred.",
        )
    t.say(
        f"<The truth is heavy at first,> said {g}, <but a lie gets heavier every day.>",
        f"That night {h} slept like a stone.",
        f"After that, when something broke, {h} said so at once. It was easier.",
    )


def promise(t: Teller) -> None:
    """A promise is made, and then something more pleasant is offered."""
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
