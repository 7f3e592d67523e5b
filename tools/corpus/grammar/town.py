"""Stories in streets and squares."""

from __future__ import annotations

from grammar import cast, scenes, words
from grammar.telling import Teller


def market(t: Teller) -> None:
    """Coins to spend, and a choice."""
    h, g = cast.child(t), cast.elder(t)
    n = cast.neighbour(t)
    x = words.belonging(t)
    plot, coins = t.draw.below(3), t.one("three", "four", "five")
    price = coins if plot == 0 else "two" if plot == 1 else "ten"
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, {h} went to the market with {coins} coins in {h.his} pocket.",
        f"{scenes.when(t)}, {g} gave {h} {coins} coins and a basket. <Buy [bread|eggs|onions], and you may keep what is left,> {g} said.",
        f"{h} had saved {coins} coins. {scenes.when(t)}, {h.he} took them to the market.",
    )
    t.say(
        "There were [red apples|fat pumpkins|silver fish] in rows, and a man shouted, <[Fresh|Sweet|Fine] [pears|plums|cherries]!>",
        "It smelled of cheese and [oranges|roses|fried fish], and somebody played the [accordion|fiddle].",
        "There were hens in baskets and [bread in towers|cloth in every colour|pots in piles].",
    )
    t.say(
        f"Then {h} saw {x.a}. It was exactly what {h.he} had always wanted.",
        f"On one of the tables, between cups and candles, lay {x.a}. {h} stood still.",
    )
    t.say(
        f"<How much is it?> asked {h}. <{price} coins,> said the woman.",
        f"<What does the {x} cost?> asked {h}. <For you, {price} coins,> said the man, and smiled.",
    )
    t.paragraph()
    match plot:
        case 0:
            t.say(
                f"{h} was just about to pay when {h.he} saw {n} searching the ground. <I have lost my purse,> said {n}.",
                f"Behind {h} stood {n} with an empty basket. <My purse has a hole,> {n} said. <Now I have nothing for supper.>",
            )
            t.say(
                f"{h} looked at the {x}. Then {h.he} looked at the coins in {h.his} hand.",
                f"The coins in {h}'s hand grew warm.",
            )
            t.say(
                f"<Here,> said {h}, and gave {n} the money. <A {x} does not get hungry.>",
                f"<I have {coins} coins,> said {h}. <That is enough for bread and [cheese|soup].>",
            )
            t.say(
                f"{n} did not know what to say. The {x} stayed where it was, and {h} went home with empty pockets.",
                f"<I will give it back,> said {n}. {h} nodded and did not look at the {x} again.",
            )
            t.say(
                f"A week later a parcel lay on the step. In it was the {x.full}, and a note: <I found my purse. {n}.>",
                f"But on Sunday {n} came with something behind {n.his} back. It was the {x.full}. <The woman at the market told me,> said {n}.",
            )
        case 1:
            t.say(
                f"{h} paid and ran home with it. Only at home did {h.he} see that the woman had given {h.him} a coin too many.",
                f"{h} gave the man the money, and he gave back a coin by mistake, because he was talking to somebody else.",
            )
            t.say(
                f"<Nobody knows,> thought {h}. <But I know,> {h.he} thought then.",
                f"<Lucky me!> thought {h}. But the coin lay in {h.his} pocket like a hot stone.",
            )
            t.say(
                f"So {h} ran all the way back. The tables were already being [cleared|packed up].",
                f"{h} turned around. The way back seemed much longer.",
            )
            t.say(
                f"<This is yours,> said {h}, out of breath. <You gave me too much.>",
                f"<You made a mistake,> said {h}, and held out the coin.",
            )
            t.say(
                "<I sell a hundred things a day,> was the answer, <but honest people I see only now and then. Come back next week, I will need help.>",
                f"For that {h} got a [ribbon|red apple|bag of nuts], and a handshake.",
                f"<You have honest eyes,> was the answer, <for they look straight at people.> {h} did not understand it, but {h.he} was glad.",
            )
        case _:
            t.say(
                f"But {h} had only {coins} coins. {h.his} face fell.",
                f"<I do not have that much,> said {h}. <Then what can you do?> was the answer. {h} thought.",
            )
            t.say(
                f"<I can [sing|count|carry],> said {h}. <Then stay here for an hour and help me.>",
                f"<I could work for it,> said {h}. <Could you really? Then watch my table while I eat.>",
            )
            t.say(
                f"So {h} stood behind the table and called, <Come and buy! Everything is good here!> And the people came.",
                f"{h} [wrapped cups in paper|carried boxes|chased the pigeons away], and the hour flew by.",
            )
            t.say(
                f"When the clock struck [noon|twelve], there was hardly anything left on the table but the {x}. <That is yours now.>",
                f"<I have never sold so much,> was the answer. <Take the {x}. You have earned it.>",
            )
            t.say(
                f"{h} carried it home like a crown.",
                f"<Did you buy that?> asked {g}. <No,> said {h}, <I worked for it,> and {h.he} stood very straight.",
            )
    t.paragraph()
    t.say(
        f"<What did you buy?> asked {g} at supper. <Something you cannot put into a basket,> said {h}.",
        f"The {x.full} still hangs over {h}'s bed." if x.noun in ("kite", "hat", "scarf", "umbrella", "basket", "whistle")
        else f"The {x.full} has a place of its own in {h}'s room now.",
        f"In the evening {h} told {g} everything, and {g} forgot to ask about the change.",
        f"And whenever {h} goes to the market now, somebody waves.",
    )  # fmt: skip


def stranger(t: Teller) -> None:
    """A stranger on the road needs help and returns it later."""
    h, g = cast.child(t), cast.elder(t)
    female = t.draw.chance(1, 2)
    who = (
        t.one("old woman", "tall woman", "woman in a grey cloak")
        if female
        else t.one("old man", "thin man", "man with a white beard")
    )
    he, his, him = ("she", "her", "her") if female else ("he", "his", "him")
    short = "woman" if female else "man"
    scenes.meet(t, h)
    t.paragraph()
    task = t.draw.below(4)
    sight, ask, deed = (
        (f"with a heavy [sack|basket|suitcase] that {he} could hardly carry", "Is it far to the village",
         "took one handle, and together they carried it up the hill"),
        ("beside a cart with a wheel in the ditch", "Are you strong",
         "put stones under the wheel and pushed until it came free"),
        ("who turned a map around and around", "Do you know the way to the harbour",
         f"walked along as far as the crossroads, so that {he} could not go wrong"),
        (f"who sat by the road and held {his} foot", "Have you seen a walking stick",
         f"cut a strong stick from the hedge and lent {him} an arm"),
    )[task]  # fmt: skip
    t.say(
        f"{scenes.when(t, 'cloudy')}, {h} was on the way to [school|the mill|{g}'s house] when {h.he} met an {who} {sight}.",
        f"{scenes.when(t, 'cloudy')}, {h} met an {who} {sight}.",
    )
    t.say(
        "Other people [walked by|hurried past] and looked the other way.",
        f"{h} was in a hurry. But {h.he} stopped.",
    )
    t.say(
        f"<{ask}?> asked the {short}. <Let me help you,> said {h}.",
        f"<Good day,> said {h}. <Can I help?> <{ask}?> asked the {short}.",
    )
    t.say(f"{h} {deed}.", f"So {h} {deed}, and they talked all the time.")
    t.say(
        f"<Where do you come from?> asked {h}. <From far away,> said the {short}, <where the [hills are blue|sea is warm|rivers freeze].>",
        f"<Why are you travelling?> asked {h}. <I am looking for my [sister|daughter|brother],> said the {short}. <It is many years.>",
        f"The {short} told {h} about [whales|deserts|white bears|floating markets], and the way was short.",
    )
    t.maybe(
        f"{h} had only one [roll|apple|egg] for lunch, but {h.he} gave half of it away.",
        f"It began to drizzle, and they shared {h}'s coat like a tent.",
    )
    t.paragraph()
    t.say(
        f"When they said goodbye, the {short} gave {h} a small [stone with a hole|tin whistle|brown seed|wooden bird]. <Keep it. It is worth nothing and a great deal.>",
        f"<I have nothing to give you,> said the {short}, <but I will tell people about you.>",
    )
    t.say(
        f"{h} came home late. <Where have you been?> asked {g}. {h} told {g.him}, and {g} was not angry.",
        f"{h} was late, and had to run. But {h.his} feet were light.",
    )
    t.paragraph()
    match t.draw.below(3):
        case 0:
            t.say(
                f"Months later {h} lost {h.his} way in the big town. Nobody stopped. Then a voice said, <I know you!>",
                f"In winter {h} had to go to the town with a letter, and it grew dark, and all the streets looked the same.",
            )
            t.say(
                f"It was the {short} from the road. <Now I will show you the way,> said the {short}.",
                f"A door opened, and there stood the {short} from the road, with a lamp. <Come in and get warm,> said the {short}.",
            )
        case 1:
            t.say(
                f"A year later a letter came with a strange stamp. It was for {h}, the first letter of {h.his} life. "
                "<I have found what I was looking for,> it said, <because somebody once showed me the way. Thank you.>",
                f"In spring a parcel came for {h} from a far country. "
                "In it was [a box of dates|a shell as big as a hand|a red cap], and a note: <From the road.>",
            )
        case _:
            t.say(
                f"They never saw each other again. But when {h} grew up, {h.he} always stopped when somebody stood by the road.",
                f"The next week {h} fell off a wall, and a stranger carried {h.him} home. <Why are you helping me?> asked {h}. <Somebody once helped me,> said the stranger.",
            )
            t.say(
                f"<You never know who it is,> said {h}. <You do not have to know,> said {g}.",
                "So it goes around, like a wheel.",
            )
    t.say(
        f"<A good deed has long legs,> {g} used to say.",
        f"<That is how roads are made,> said {g}, <one step by each of us.>",
        f"{h} thought of it for a long time.",
    )


def errand(t: Teller) -> None:
    """A child delivers a parcel, with events on the way."""
    h, g, n = cast.child(t), cast.elder(t), cast.neighbour(t)
    what, danger = t.draw.one(
        (
            ("a cake in a box", "the box must not be shaken"),
            ("a jug of milk", "not a drop must be spilled"),
            ("a basket of eggs", "not one must break"),
            ("a letter", "it must not get wet"),
            ("a pot of soup", "it must still be warm"),
            ("a clean white shirt", "it must stay clean"),
        )
    )
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"{scenes.when(t, 'cloudy')}, {g} said, <{h}, can you take {what} to {n}? But {danger}.>",
        f"<You are big enough now,> said {g}. <Take {what} to {n}, all by yourself. But {danger}.>",
    )
    t.say(
        f"<I can do that,> said {h}. {h.He} had never gone so far alone.",
        f"{h} took it with both hands and set off.",
    )
    t.paragraph()
    meetings = t.draw.some((0, 1, 2, 3, 4), 2)
    for i, meeting in enumerate(meetings):
        first = "First" if i == 0 else t.one("Next", "A little farther on", "Then")
        match meeting:
            case 0:
                f = cast.friend(t, h)
                t.say(
                    f"{first} {h} met {f}. <Come and play,> said {f}. <Later,> said {h}. <I have something to do.>",
                    f"{first} {f} came up the street with a ball. <Catch!> called {f}. <Not now!> cried {h}, and only just got out of the way.",
                )
            case 1:
                p = cast.pet(t, "dog")
                t.say(
                    f"{first} a dog named {p} jumped up at {h}. {h} stood as still as a post until the dog lost interest.",
                    f"{first} {p}, the butcher's dog, wanted to know what it was. <Sit!> said {h}, and {p} sat, because nobody had ever said it so firmly.",
                )
            case 2:
                t.say(
                    f"{first} it began to rain. {h} [put {h.his} own coat over it|waited under an arch] and counted the drops.",
                    f"{first} a cloud came and burst. {h} got wet, but what {h.he} carried stayed dry under {h.his} coat.",
                )
            case 3:
                t.say(
                    f"{first} the street was closed, because [they were mending it|a tree had fallen]. So {h} had to go through the [park|churchyard].",
                    f"{first} there was a flock of sheep that filled the whole lane. {h} climbed on a stone and let them flow by.",
                )
            case _:
                t.say(
                    f"{first} {h} did not know whether to go left or right. <Excuse me,> {h.he} asked the postman, <where is the green door?>",
                    f"{first} {h} came to three streets. <Left at the fountain,> {g} had said. Or was it right? {h} closed {h.his} eyes and remembered. Left.",
                )
    t.paragraph()
    if t.draw.chance(1, 2):
        t.say(
            f"At last {h} stood in front of {n}'s door. And there, on the very last step, {h.he} stumbled.",
            f"{n}'s house was already in sight when {h}'s foot caught on a root.",
        )
        t.say(
            f"{h} fell on {h.his} knees, but {h.his} arms stayed up in the air. Nothing had happened to it.",
            f"{h} held on with all {h.his} might, and fell on {h.his} back rather than let go. Nothing was lost.",
        )
        t.say(
            f"<My goodness,> said {n}, who had seen it all. <First your bones, and then the parcel.>",
            f"{n} opened the door. <Are you hurt?> <No,> said {h}, <and here is what {g} sent.>",
        )
    else:
        t.say(
            f"At last {h} stood in front of {n}'s door and knocked with {h.his} [elbow|foot|forehead], because both hands were full.",
            f"{n} was just looking out of the window. <Is that for me?> {n} called.",
        )
        t.say(
            f"<From {g},> said {h}, <and nothing has happened to it.>",
            f"<Did you come all this way alone?> asked {n}. <Yes,> said {h}, as if it were nothing.",
        )
    t.say(
        f"{n} gave {h} [a pear|a biscuit|an orange] for the way back, and a note for {g}.",
        f"{n} was very pleased, because it was a sad day otherwise, and it got better from then on.",
    )
    t.paragraph()
    t.say(
        "The way back was much shorter, as ways back are.",
        f"On the way back {h} hopped over every crack in the pavement.",
    )
    t.say(
        f"{g} was standing at the gate and acted as if {g} had not been waiting. <Already back?> asked {g}.",
        f"<What does the note say?> asked {h}. <It says that I have a [reliable|big] {h.kind},> said {g}.",
        f"<Well?> asked {g}. <It was easy,> said {h}, and fell asleep at the table.",
    )


def letter(t: Teller) -> None:
    """Letters are sent to a person who is far away."""
    h = cast.child(t)
    far = t.one("father", "brother", "sister", "uncle", "aunt")
    female = far in ("sister", "aunt")
    he, him = ("she", "her") if female else ("he", "him")
    where = t.one("on a ship", "in the mountains", "in a far city", "on an island", "at a lighthouse")
    g = cast.grandparent(t)
    scenes.meet(t, h)
    t.say(
        f"{h.his} {far} worked {where} and came home only at New Year.",
        f"{h} had a {far} who lived {where}, and {h} missed {him} very much." if far != "father"
        else f"{h.his} father lived {where} because of his work, and {h} missed him very much.",
    )  # fmt: skip
    t.paragraph()
    t.say(
        f"<When will {he} come?> asked {h}. <When the snow comes,> said {g}. It was only [May|June|July].",
        f"{scenes.when(t)}, {h} said to {g}, <I want to tell {him} something, but {he} is too far away to hear.>",
    )
    t.say(
        f"<Write a letter,> said {g}. <I cannot write so many words,> said {h}. <Then draw the rest,> said {g}.",
        f"<Paper has a long voice,> said {g}, and got ink and an envelope.",
    )
    t.say(
        f"So {h} wrote a letter about the [calf|new teacher|loose tooth] and drew the [garden|cat on the roof|whole family].",
        f"So {h} wrote a letter. <How are you? I am well. The plums are ripe. Do you have plums where you are?>",
        f"So {h} wrote a letter, slowly, with a tongue between {h.his} teeth. It took two evenings.",
    )
    t.maybe(f"At the end {h} put a [leaf|feather|pressed flower] into it, because it was a piece of home.")
    t.say(
        f"{h} put it into the yellow box at the corner and listened to it fall.",
        f"They took it to the post office, and {h} licked the stamp.",
    )
    t.paragraph()
    t.say(
        f"Then {h} waited. Every day {h.he} ran to meet the postman, and every day the postman shook his head.",
        f"A week went by, and then another. <Maybe it fell into the sea,> said {h}.",
    )
    t.say(
        f"<A letter has to walk, to sail and to ride,> said {g}. <Give it time.>",
        f"<Nobody has forgotten you,> said {g}. <It is a long way.>",
    )
    t.say(
        "Then, on a [Tuesday|Thursday|Saturday], the postman waved from far away. He had a blue envelope.",
        f"And one morning a letter lay on {h}'s plate, under the bread.",
    )
    t.say(
        f"<Dear {h},> it said, <I have read your letter [ten|twenty] times, and I keep it under my pillow.>",
        f"<Dear {h},> it said, <there are no plums here, but there are [seals|eagles|trams|palm trees]. I will show them to you.>",
        f"It was full of drawings: [a whale|a goat with a hat|a house on legs], and {h}'s own name in big letters.",
    )  # fmt: skip
    t.paragraph()
    t.say(
        f"{h} answered the same evening. So the letters went back and forth, all summer long.",
        f"Now {h} had a box for letters, and in autumn it was almost full.",
    )
    t.say(
        "And when the first snow fell, there were steps on the stairs, and they were not the postman's.",
        f"At New Year the door opened. <Here comes a letter that can hug you,> said {h.his} {far}.",
        f"<It is as if {he} were sitting at the table with us,> said {h}. {g} set another cup on the table, just for fun.",
        f"On the last page of the last letter it said, <I am coming home on Sunday.> {h} read it until the paper was soft.",
    )


def music(t: Teller) -> None:
    """A musician plays in the street, and at first no one listens."""
    h = cast.child(t)
    n, f = cast.neighbour(t), cast.friend(t, h)
    inst, sound = t.draw.one(
        (
            ("fiddle", "sang like a bird and wept like rain"),
            ("accordion", "breathed like a big friendly animal"),
            ("trumpet", "shone like the sun"),
            ("flute", "ran up and down like a squirrel"),
            ("guitar", "sounded like warm rain on leaves"),
            ("drum", "walked like an elephant"),
        )
    )
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, a man with a {inst} stood in the square. He played, but nobody [stopped|listened].",
        f"In the square there was often a man who played the {inst}. His hat lay in front of him, and it was empty.",
    )
    t.say(
        f"{h} stood still. The {inst} {sound}.",
        f"{h} was on the way to school, but {h.his} feet would not go on. The {inst} {sound}.",
    )
    t.say(
        f"<Why is nobody listening?> asked {h}. <They are in a hurry,> said the man. <They hear it, but they do not know it.>",
        f"<Are you sad?> asked {h}. <Only on some days,> said the man. <Today a little.>",
        f"<I have no money,> said {h}. <Do you have ears?> asked the man. <Two,> said {h}. <That is plenty,> said the man.",
    )
    t.paragraph()
    t.say(
        f"{h} began to [dance|hop and turn]. {f} came by and laughed. <What are you doing?> <I am listening with my feet,> said {h}.",
        f"{h} clapped along. {f}, who was passing, knew the tune and began to sing.",
        f"{h} ran to get {f}, and the two of them sat down right in front of him, as in a theatre.",
    )
    t.say(
        f"Then {n} stopped with a bag in each hand. One foot began to tap, and then the other.",
        f"The baker came out of her shop. {n} opened a window. A baby stopped crying.",
    )
    t.say(
        "Soon the whole square was full of people, and even the [policeman|pigeons] nodded in time.",
        f"More and more people came, and in the end {n} danced with the postman.",
    )
    t.say(
        f"The coins rang in the hat. The man bowed, and he bowed lowest to {h}.",
        "The hat was full of coins, and somebody put in a [sausage|rose|warm roll].",
    )
    t.paragraph()
    t.say(
        f"<Would you like to try?> asked the man. {h} took the {inst}. It made an awful noise, and everyone clapped.",
        f"<That was your dance,> said the man, and played it once more, only for {h}.",
        f"<What can I give you?> asked the man. <The tune,> said {h}. So he played it until {h} knew it by heart.",
    )
    t.say(
        f"{h} came late to school. <Why?> asked the teacher. {h} whistled the tune, and the teacher understood.",
        "The next day the man was gone, on to the next town. But the whole street was humming.",
        f"When {h} cannot sleep, {h.he} thinks of the {inst}, and it plays very softly.",
    )
