"""Stories of children and animals."""

from __future__ import annotations

from grammar import cast, scenes
from grammar.person import Person
from grammar.telling import Teller


def sick_animal(t: Teller) -> None:
    """An animal is ill, and a person stays with it."""
    h, g = cast.child(t), cast.elder(t)
    kind = t.one("dog", "cat", "pony", "goat", "calf", "rabbit")
    name = t.one("Daisy", "Star", "Pip", "Hazel", "Snow", "Juno")
    a = t.enter(Person(name, t.draw.chance(1, 2), kind))
    vet = t.one("Doctor Field", "Doctor Brook")
    scenes.meet(t, h)
    t.say(
        f"{h} had a {t.one('brown', 'white', 'spotted', 'black')} {kind} named {a}.",
        f"{h.his} best friend was {a}, a [young|gentle|lively] {kind}.",
        f"Every morning {h} fed {a} the {kind} before {h.he} had breakfast {h.himself}.",
    )
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, {a} did not come when {h} called.",
        f"{scenes.when(t)}, {a} would not eat. {a.he} lay on {a.his} side and only lifted {a.his} head a little.",
        f"{scenes.when(t)}, {h} found {a} in a corner. {a.his} nose was hot and {a.his} eyes were dull.",
    )
    t.say(
        f"<{g}!> called {h}. <{a} is [ill|not well]!> {g} came and felt {a}'s ears. <We must get {vet},> said {g}.",
        f"<What is the matter with {a.him}?> asked {h}. <I do not know,> said {g}. <Run and get {vet}.>",
    )
    t.say(
        f"{h} ran all the way, through the [mud|wood|fields], without stopping once.",
        f"It was far, and {h} had a stitch in {h.his} side, but {h.he} did not slow down.",
    )
    cause, cure = t.draw.one(
        (
            ("has a fever", "Give {him} this powder in water every two hours, at night as well"),
            ("has eaten something bad", "Give {him} only warm tea today, and rub {his} belly"),
            ("has a thorn in {his} foot", "I have taken it out, but you must bathe the foot every evening"),
            ("has caught a cold", "Keep {him} warm and dry, and do not leave {him} alone"),
            ("has a bad cough", "Boil thyme with honey, and let {him} drink it drop by drop"),
        )
    )
    cause, cure = cause.format(his=a.his), cure.format(him=a.him, his=a.his)
    t.say(
        f"{vet} [listened|looked] for a long time. <{a} {cause},> said the doctor. <{cure}.>",
        f"The doctor opened the black bag and bent down. <{a} {cause}. {cure}.>",
    )
    t.say(
        f"<Will {a.he} die?> asked {h}. <Not if somebody looks after {a.him},> said {vet}. <I will,> said {h}.",
        f"<I will do it,> said {h}. <It will be a long night,> said {vet}. <Then I will be awake for a long night.>",
    )
    t.paragraph()
    t.say(
        f"So {h} made a bed of straw beside {a} and stayed there.",
        f"{h} brought {h.his} pillow and lay down next to {a}.",
    )
    t.say(
        f"{h} did everything just as the doctor had said. In between {h.he} told {a} about all that they would do in summer.",
        f"{h} stroked {a} and sang, very softly, every song {h.he} knew.",
        f"The clock struck one, and two, and three. {h.his} eyes wanted to close, but {h.he} washed them with cold water.",
    )
    t.maybe(
        f"{g} came with a blanket and sat with them for a while.",
        f"At midnight {a} shivered, and {h} put {h.his} own coat over {a.him}.",
        f"<Please,> said {h} into the dark, and did not know to whom.",
    )
    t.say(
        f"Toward morning {h} fell asleep after all. Something wet woke {h.him}. It was {a}'s tongue.",
        f"When the first bird sang, {a} lifted {a.his} head and drank a little water.",
        f"At sunrise {h} felt {a}'s nose. It was cool.",
    )
    t.paragraph()
    t.say(
        f"<{a.he} is eating!> shouted {h} through the whole house.",
        f"On the third day {a} stood up, and on the fourth {a.he} ran.",
        f"{vet} came again and smiled. <I only brought the medicine,> said the doctor. <You brought the rest.>",
    )
    t.say(
        f"In summer they did all that {h} had promised, one thing after the other.",
        f"After that {a} followed {h} everywhere, even to the school door.",
        f"<I want to be a doctor for animals,> said {h}. <You are one already,> said {g}.",
        f"{h} slept until noon, with {a} beside {h.him}, and nobody woke them.",
    )


def nestling(t: Teller) -> None:
    """A wild animal is found, cared for, and let go."""
    h, g = cast.child(t), cast.elder(t)
    what, where, eats, free = t.draw.one(
        (
            ("young blackbird", "under the hedge", "worms and flies", "flew up into the pear tree and began to sing"),
            ("young swallow", "on the stable floor", "flies of every kind", "shot into the sky like an arrow"),
            ("baby owl", "at the foot of the old tower", "bits of meat", "spread its soft wings without a sound"),
            ("little hedgehog", "in the wet leaves", "beetles and chopped egg", "trotted off into the tall grass"),
            ("baby squirrel", "under the big pine", "nuts and milk", "ran up the trunk and looked back once"),
            ("young duck", "alone in the reeds", "oats and water plants", "swam away with the others in one long line"),
            ("small hare", "in the mown hay", "clover and carrots", "bounded over the field in great leaps"),
        )
    )
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, {h} found a {what} {where}.",
        f"{scenes.when(t)}, {h} heard a tiny sound. A {what} sat {where} and trembled.",
    )
    t.say(
        f"<Where is your mother?> asked {h}. There was no answer, only a quick little heart.",
        f"{h} hid behind a wall and waited a long time to see if the mother would come. She did not.",
        f"<Do not touch it yet,> said {g}. <First we wait for the mother.> They waited until evening, but nobody came.",
    )
    t.say(
        f"{g} looked at it. <It is [cold|weak|hurt]. Alone it will not live.> <Then it is not alone,> said {h}.",
        f"<May I keep it?> asked {h}. <You may help it,> said {g}. <Keeping is something else.>",
    )
    t.paragraph()
    t.say(
        f"{h} put [moss|wool|hay] into a box and set it in a warm corner.",
        "They made it a bed in an old [hat|basket|drawer].",
    )
    t.say(
        f"It ate {eats}. It was hungry from morning to night, and {h} was busy from morning to night.",
        f"<What does it eat?> asked {h}. <{eats},> said {g}. So {h} went looking, with a jar in {h.his} hand.",
        f"At first it would not eat. Then {h} held the food out on a small stick, and at last it opened its mouth. It liked {eats} best.",
    )
    name = t.one("Crumb", "Little One", "Dot", "Hush", "Button", "Minnow")
    t.say(f"{h} named it {name}.", f"<I will call you {name},> said {h}.")
    t.say(
        f"After a week {name} knew {h}'s voice. After two weeks {name} was twice as big.",
        f"{name} slept in {h}'s sleeve and woke up when {h} laughed.",
        f"{name} grew and grew, and the box became too small.",
    )
    t.paragraph()
    t.say(
        f"Then came the day when {name} sat at the window and looked out. <Look,> said {g}. {h} did not want to look.",
        f"One morning {name} would not stay in the box any more. <It is time,> said {g}.",
    )
    t.say(
        f"<It is happy here,> said {h}. <Yes,> said {g}. <But out there it is at home.>",
        f"<If I open the door, it will go away,> said {h}. <And if you do not open it?> asked {g}. {h} was silent.",
        f"{h} cried a little. Then {h.he} carried the box outside {h.himself}.",
    )
    t.say(
        f"{h} opened {h.his} hands. {name} sat still for a moment, and then it {free}.",
        f"They went back to the place where it had been found. {name} looked at {h}, and then it {free}.",
    )
    t.paragraph()
    t.say(
        f"<Goodbye, {name},> said {h}. The box was empty, but {h} was not.",
        f"<Did I do it right?> asked {h}. <You did the hardest part right,> said {g}.",
        f"Sometimes, in the evening, {h} puts out some {t.one('crumbs', 'water', 'food')}, and in the morning it is gone.",
        f"The next spring {h} thought that {h.he} saw {name}, with a family. It may have been another one. But it looked at {h} for a long time.",
    )


def stray(t: Teller) -> None:
    """An animal without a home, and a family that does not want one."""
    h, g = cast.child(t), cast.parent(t)
    kind = t.one("dog", "cat")
    p = cast.pet(t, kind)
    look = t.one("thin grey", "muddy brown", "small black", "limping white", "shaggy yellow")
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, a {look} {kind} followed {h} home from school.",
        f"{scenes.when(t)}, a {look} {kind} sat in front of the door as if it had an appointment.",
        f"{scenes.when(t)}, {h} heard something behind the bins. It was a {look} {kind}.",
    )
    t.say(
        f"<Whose are you?> asked {h}. The {kind} had no collar, and its ribs could be counted.",
        f"{h} gave it half of {h.his} sandwich, and it was gone in one bite.",
    )
    t.say(
        f"<May we keep it?> asked {h}. <No,> said {g}. <We have no room, and animals make dirt.>",
        f"<It cannot stay here,> said {g}. <One night?> asked {h}. <One night,> said {g}, <and in the shed.>",
        f"<We are not getting a {kind},> said {g}. <It is only passing through,> said {h}.",
    )
    t.say(f"{h} called the {kind} {p}.", f"{h} gave it a name, just for that one night: {p}.")
    t.paragraph()
    t.say(
        f"The next day {h} hung up notes on all the trees: <Found, one {kind}.> Nobody came.",
        f"They asked at every door, but nobody had lost a {kind}.",
    )
    t.say(
        f"So one night became two, and two became seven. {p} slept on {h}'s old coat and did not make a sound.",
        f"{h} washed {p} in the tub. Under all the dirt {p} was [golden|white|quite handsome].",
        f"{p} waited at the gate every afternoon, until {h} came back from school.",
    )
    match t.draw.below(4):
        case 0:
            t.say(
                f"Then, one night, {p} [barked|scratched at the door] and would not stop. {g} got up, very cross. There was smoke in the kitchen.",
                f"In the night {p} woke {g}. A coal had fallen out of the stove, and the rug was beginning to burn.",
            )
            t.say(
                f"{g} poured a bucket of water on it. Then {g} sat down on the floor, next to {p}.",
                f"When the fire was out, {g} looked at {p} for a long time. <Good {kind},> said {g}.",
            )
        case 1:
            t.say(
                f"Then {g} fell ill and had to stay in bed. {p} lay at {g}'s feet for three days and did not move.",
                f"Then came a bad week, in which {g} was tired and sad. {p} put {p.his} head on {g}'s knee.",
            )
            t.say(
                f"<{p.he} is warm,> said {g}. That was all, but {h} heard what was behind it.",
                f"<Who let you in?> asked {g}, but {g} did not send {p.him} away.",
            )
        case 2:
            t.say(
                f"Then {h.his} baby brother crawled out of the gate, and nobody saw it but {p}.",
                f"Then it happened that {h.his} little sister got lost at the [fair|market]. Everyone searched.",
            )
            t.say(
                f"{p} ran after the child, took hold of its shirt, and held on until {g} came.",
                f"It was {p} who found the child, asleep under a cart, and sat beside it and made noise until they came.",
            )
        case _:
            t.say(
                f"Then mice got into the [flour|corn]. {p} sat in front of the hole all night. In the morning the mice had moved out.",
                f"Then something began to steal the eggs. {p} kept watch, and the fox did not come again.",
            )
            t.say(
                f"<Somebody is earning a living here,> said {g}.",
                f"{g} put down a dish of milk. <That is not for staying,> said {g}. <That is for working.>",
            )
    t.paragraph()
    t.say(
        f"The next morning there was a collar on the table. <What is that for?> asked {h}. <For our {kind},> said {g}.",
        f"<When is {p} going to leave?> asked {h} carefully. <Leave?> said {g}. <Who says that {p.he} is leaving?>",
        f"{g} built a little door into the big door. It had just the right size.",
    )
    t.say(
        f"{p} turned around three times and lay down by the stove, and that was that.",
        f"And {p}, who had had no home, had one from then on, with a place by the stove and a place on the bed.",
        f"<We have no room,> said {h}, <so {p.he} can have half of mine.>",
    )


def farm_work(t: Teller) -> None:
    """An animal will not do what it should, and there is a reason."""
    h, g = cast.child(t), cast.elder(t)
    kind, refuse, reason, remedy = t.draw.one(
        (
            ("donkey", "would not cross the bridge", "one of the boards was rotten underneath",
             "mended the bridge with a new board"),
            ("cow", "gave no milk", "she missed her calf, which was in the other barn", "brought the calf back to her"),
            ("hen", "would not lay", "she did not like the draught in the coop", "stopped the gap with straw"),
            ("horse", "would not pull the cart", "there was a stone in her shoe", "took the stone out with a hook"),
            ("goat", "cried all night", "she was alone and afraid of the dark", "put a lamb into the stable with her"),
            ("sheep dog", "ran away every morning", "she had four puppies behind the mill",
             "carried the puppies home in a basket"),
            ("goose", "bit everyone who came near", "she was sitting on seven eggs", "built a little fence around her nest"),
        )
    )  # fmt: skip
    a = t.enter(Person(t.one("Bella", "Greta", "Dolly", "Flora", "Queenie"), True, kind))
    t.say(
        f"On {g}'s farm there was a {kind} named {a}.",
        f"{h} spent the summer on a farm with {g}. There {h.he} got to know {a} the {kind}.",
        f"{g} had an old {kind} named {a}, and {h} was allowed to look after her.",
    )
    t.say(
        f"{a} was a good animal, [patient|gentle] and wise.",
        f"{a} liked [apples|salt|singing], and she knew {h}'s step.",
        f"{h} brushed her, talked to her, and told her everything that happened at school.",
    )
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, {a} {refuse}.",
        f"But all of a sudden {a} {refuse}, and nobody knew why.",
    )
    t.say(
        f"<She is stubborn,> said {g}. <Stubborn as a post.>",
        f"<She is getting old,> said {g}. <We should sell her.>",
        f"The neighbours laughed. <A {kind} like that is no use,> they said.",
    )
    t.say(
        f"{g} coaxed, {g} scolded, and {g} pushed. It did not help.",
        "They tried it with [sugar|carrots] and they tried it with shouting.",
    )
    t.say(
        f"<Maybe she has a reason,> said {h}. <Animals have no reasons,> said the neighbour. <Then why do they have eyes?> asked {h}.",
        f"<Let me stay with her,> said {h}. <I want to see what she sees.>",
        f"<Have you asked her?> said {h}. {g} laughed. But {h} meant it.",
    )
    t.paragraph()
    t.say(
        f"{h} sat down beside {a} and was quiet for a whole hour. {h.he} looked, and {h.he} listened.",
        f"{h} followed {a}'s eyes. What was she looking at?",
        f"In the evening {h} went to {a} all alone, with a lantern, and looked closely at everything.",
    )
    t.say(
        f"And then {h} knew: {reason}.",
        f"At last {h} found it: {reason}!",
    )
    t.say(
        f"<{g}, come quickly!> called {h}. {g} came, looked, and was ashamed.",
        f"<She was right all the time,> said {h}. <We just did not understand her.>",
    )
    t.say(f"Together they {remedy}.", f"Then {g} and {h} {remedy}.")
    t.say(
        f"{a} [shook her head|blinked|looked at them], and from that hour on everything was well.",
        f"The next day {a} was just as good and gentle as before.",
    )
    t.paragraph()
    t.say(
        f"<I called her stubborn,> said {g}, <and the stubborn one was me.>",
        f"<How did you find out?> asked the neighbour. <I asked her,> said {h}.",
        f"{g} gave {a} an extra [handful|bucket] of oats, and {h} an extra piece of cake." if kind not in ("hen", "goose", "sheep dog")
        else f"{g} gave {a} something good to eat, and {h} an extra piece of cake.",
        f"Since then, when somebody says no, {h} asks why.",
    )  # fmt: skip


def picnic(t: Teller) -> None:
    """A trip that goes wrong but is good in the end."""
    h, g = cast.child(t), cast.elder(t)
    f = cast.friend(t, h)
    food = t.one("bread and honey", "rolls and cheese", "cold pancakes", "egg sandwiches", "apple tarts")
    drink = t.one("lemonade", "cold tea", "apple juice")
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"{scenes.when(t, 'sunny')}, {g} packed {food} and a bottle of {drink}, and {h} and {f} carried the blanket.",
        f"{scenes.when(t, 'sunny')}, {h} said, <Let us eat outside today!> {g} packed {food} and {drink}, and {f} came along.",
    )
    t.say(
        "They walked to the [lake|top of the hill|old mill|meadow by the wood], because there the grass was softest.",
        f"<Are we there yet?> asked {f} after ten steps, and {h} laughed.",
    )
    scenes.sky(t, "sunny")
    t.paragraph()
    match t.draw.below(4):
        case 0:
            t.say(
                "They spread out the blanket, right on top of an ant hill. Soon there were ants in everything.",
                f"Hardly had they sat down when {f} jumped up. <Ouch! Ants!>",
            )
            t.say(
                f"<They have a picnic as well,> said {h}. <And we are the table,> said {f}.",
                f"<Let us move,> said {g}, <for they were here first.>",
            )
            t.say(
                f"{h} left them a crumb of bread, and they watched eleven ants carry it away. It took an hour, and they forgot to eat.",
                f"They carried everything under another tree, and only one ant came along, in {g}'s hat.",
            )
        case 1:
            t.say(
                f"They had just unpacked when a big drop fell into {h}'s cup. Then it poured.",
                "Nobody had seen the black cloud behind the hill. All at once there was rain, and there was thunder too.",
            )
            t.say(
                "They held the blanket over their heads and ran to a [barn|hay shed|cave].",
                f"<Under the bridge!> called {g}, and they ran so fast that {f} lost a shoe.",
            )
            t.say(
                f"There they sat, wet and close together, and ate. <It is like a house with a curtain of water,> said {h}.",
                "The rain was so loud that they had to shout <Please> and <Thank you>, and they shouted it a hundred times.",
            )
        case 2:
            t.say(
                "While they were playing, a [goat|cow|donkey] found the basket. When they came back, it was chewing the last bite.",
                f"But when {h} opened the basket, it was empty. There was a hole in the bottom, and a row of crumbs on the path behind them.",
            )
            t.say(
                f"<And now?> asked {f}. Their stomachs growled. <Now we look for our lunch,> said {g}.",
                f"<All that good {food}!> said {f}. {h} began to laugh, and then they all laughed.",
            )
            t.say(
                f"They found raspberries and hazelnuts, and {g} knew which leaves taste of lemon.",
                "They picked wild strawberries, drank from the spring, and said it was the best meal in years.",
            )
        case _:
            t.say(
                f"<Where are the cups?> asked {g}. {h} had forgotten them. <And the knife?> {f} had forgotten that.",
                f"They had forgotten the bottle opener, the cups and the salt, and {g} had forgotten {g.his} glasses.",
            )
            t.say(
                f"So they drank out of {h}'s [hat|boot|hands], and it tasted a little of [summer|leather|grass].",
                f"<Our grandmothers had no cups either,> said {g}, and folded three cups out of big leaves.",
            )
            t.say(
                f"{f} told riddles. <What has teeth and does not bite?> <A comb,> said {h}, who knew it already.",
                f"{h} told riddles. <What runs and has no legs?> <The brook,> said {f} with a full mouth.",
            )
    t.paragraph()
    t.say(
        f"Then they lay on their backs and looked at the clouds. <A ship,> said {h}. <A sheep,> said {f}. It was both.",
        f"Afterwards {g} fell asleep in the grass, and {h} and {f} put [daisies|clover] in {g.his} hair.",
    )
    t.say(
        f"<Everything went wrong,> said {f} on the way home. <Yes,> said {h}. <Shall we do it again next week?>",
        f"<What was the best thing?> asked {g}. <The {t.one('mistake', 'bad luck', 'middle')},> said {h}.",
        f"When {h} shook out the blanket at home, a [beetle|grass hopper|feather] fell out, and with it the whole day came back.",
    )
