"""Stories about cakes and sleep."""

from __future__ import annotations

from grammar import cast, scenes, words
from grammar.telling import Teller


def birthday(t: Teller) -> None:
    """A birthday that seems to be forgotten, or a cake that goes wrong."""
    h, g = cast.child(t), cast.parent(t)
    f = cast.friend(t, h)
    x, cake = words.toy(t), t.draw.one(words.SWEETS)
    years = t.one("six", "seven", "eight", "nine")
    scenes.meet(t, h, age=False)
    t.paragraph()
    if t.draw.chance(1, 2):
        t.say(
            f"On the morning of {h.his} birthday {h} woke up early and listened. Nobody sang.",
            f"Today {h} was {years} years old, but when {h.he} came into the kitchen, nobody said a word about it.",
            f"It was {h}'s birthday, but the house was as quiet as on any other day.",
        )
        t.say(
            f"{g} only said, <[Eat your porridge|Brush your teeth|Put on your shoes], please.>",
            f"<Do you know what day it is?> asked {h}. <{t.expand(words.DAYS)},> said {g}, and went on [sweeping|reading].",
        )
        t.say(
            f"Even {f}, {h.his} best friend, just waved and [ran past|hurried away] with something under {f.his} coat.",
            f"At school {f} did not say anything [at all|about it], and whispered with the others instead.",
        )
        scenes.sorry_for(t, h)
        t.paragraph()
        t.say(
            f"When {h} came home in the afternoon, the door was [shut|locked] and the curtains were closed.",
            f"After school {h} walked home slowly. The house was dark.",
        )
        t.say(
            f"{h} pushed the door open. <Surprise!> cried {g} and {f} and all the neighbours.",
            f"{h.he} opened the door, and suddenly there were [candles|lights|paper stars] everywhere. <Happy birthday, {h}!>",
        )
        t.say(
            f"On the table stood {t.one('a', 'a big', 'a tall')} {cake} with {years} candles.",
            f"{g} carried in the {cake}, and {years} candles burned on it.",
        )
        t.say(
            f"<You did not forget!> said {h}. <How could we?> said {g}. <It is hard work to keep a secret.>",
            f"<I thought you had forgotten me,> said {h}. <Never,> said {f}. <I almost told you three times!>",
        )
    else:
        t.say(
            f"Tomorrow {h} would be {years} years old, so {g} baked a {cake}.",
            f"It was {h}'s birthday, and {g} had baked a {cake} with {years} candles.",
        )
        culprit = cast.pet(t, t.one("dog", "cat"))
        t.say(
            "It stood on the [window sill|table] to cool. Then there was a [crash|bump|thump].",
            f"But when everyone was out of the room, {culprit} the {culprit.kind} [smelled|saw] it.",
        )
        t.say(
            f"{culprit} had pulled it down, and now {culprit.he} sat in the crumbs and licked {culprit.his} nose.",
            f"When they came back, half of the cake was gone, and {culprit} had cream on {culprit.his} whiskers.",
        )
        t.say(
            f"<My cake!> cried {h}. <And {f} is coming at three o'clock!>",
            f"<Oh no,> said {g}. <There is no time to bake another one.>",
        )
        scenes.think(t, h)
        t.say(
            f"<We have bread and [honey|jam|apples],> said {h}. <We can build a cake!>",
            f"<Let us make a tower of pancakes,> {h.he} said. <A tower can have candles too.>",
            f"<We will put the candles on apples,> {h.he} said, <one apple for each year.>",
        )
        t.say(
            f"When {f} came, {f.he} [clapped {f.his} hands|opened {f.his} eyes wide]. <I have never seen such a cake!> {f.he} said.",
            f"{f} [looked at it|walked around it] and said, <This is the [best|funniest] birthday cake in the world.>",
        )
    t.paragraph()
    t.say(
        f"Then {f} gave {h} a present. Inside the paper was {x.a}.",
        f"<Open it,> said {f}, and gave {h} a parcel. In the parcel lay {x.a}.",
        f"{f} had brought a present: {x.a}, [wrapped in blue paper|with a ribbon around it].",
    )
    t.say(
        f"<{t.one('It is just what I wished for!', 'How did you know?', 'It is beautiful!')}> said {h}.",
        f"{h} [hugged {f}|jumped for joy|did not know what to say].",
    )
    t.say(
        "They [played|danced|sang] until the candles had burned down.",
        f"They played with the {x} until it was dark, and then they played a little more.",
        f"{h} made a wish and blew, and all {years} candles went out at once. What {h.he} wished is a secret.",
    )
    t.maybe(
        f"<I think {years} is the best age of all,> said {h} before {h.he} fell asleep.",
        f"It was the best birthday {h} had ever had.",
    )


def baking(t: Teller) -> None:
    """An ingredient for the cake is missing, and the search for it leads to other people."""
    h, g, n = cast.child(t), cast.elder(t), cast.neighbour(t)
    cake = t.draw.one(words.SWEETS)
    missing = t.one("sugar", "flour", "butter", "milk")
    back = t.one("six eggs", "a jar of jam", "a bag of nuts", "a bunch of mint", "a loaf of bread", "ten plums")
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, {h} and {g} wanted to bake a {cake}.",
        f"{scenes.when(t)}, {g} tied on an apron and said, <Let us bake a {cake}.>",
        f"{scenes.when(t)}, {h} asked, <May we bake something?> <Yes,> said {g}. <How about a {cake}?>",
    )
    t.say(
        f"{h} [washed {h.his} hands|stood on a stool|got the big bowl] and [cracked the eggs|stirred with the long spoon].",
        f"They put the bowl on the table, and {h} read out what they needed.",
        f"{g} lit the oven, and {h} greased the tin.",
    )
    t.say(
        f"But when they came to the {missing}, the [jar|shelf|cupboard] was empty.",
        f"<Now the {missing},> said {g}. {h} looked. There was no {missing} in the house.",
        f"Then {h} saw that [the mice had been at|there was only a spoonful left of] the {missing}.",
    )
    t.say(
        f"<Run over to {n},> said {g}, <and ask for a cup of {missing}.>",
        f"<I can ask {n},> said {h}, and was out of the door.",
    )
    t.paragraph()
    t.say(
        f"{n} was [sitting on the step|digging in the garden|feeding the hens]. <Good day,> said {h}. <Do you have some {missing}?>",
        f"{h} knocked. <May I borrow a cup of {missing}?> {h.he} asked when {n} opened.",
    )
    if t.draw.chance(1, 2):
        task = t.one(
            "My hens have got out, and I cannot catch them alone",
            "I cannot find my glasses, and I cannot see without them",
            "My cat is up on the roof and will not come down",
            "This thread will not go into my needle",
            "My firewood must be carried in before it rains",
        )
        did = {
            "My hens": "chased the hens from one corner to the other until all seven were in",
            "I canno": "looked everywhere, and the glasses were on top of the milk can",
            "My cat ": "put a dish of fish on the window sill, and soon the cat came down by itself",
            "This th": "held the needle up to the light and pulled the thread through at the first try",
            "My fire": "carried wood, five logs at a time, until the basket was full",
        }[task[:7]]
        t.say(
            f"<You shall have it,> said {n}, <but can you help me first? {task}.>",
            f"<Gladly,> said {n}, <but I am in trouble. {task}.>",
        )
        t.say(f"<Of course,> said {h}, and {h.he} {did}.", f"So {h} {did}.")
        t.say(
            f"<You are a [great|real|true] help,> said {n}, and filled the cup to the top, and gave {h} {back} as well.",
            f"{n} was so pleased that {h} got the {missing} and {back} besides.",
        )
    else:
        t.say(
            f"<I have {missing},> said {n}, <but I have nobody to eat cake with.> {h} laughed. <Then come at four o'clock!>",
            f"<Here you are,> said {n} [a little sadly|and sighed]. <It is long since I baked. It is no fun alone.>",
        )
        t.say(
            f"{h} thought about that on the way back. It must be quiet in a house with only one chair.",
            f"{h} carried the cup home with both hands and did not spill anything.",
        )
    t.paragraph()
    t.say(
        f"So the {cake} was baked after all, and the [whole house|kitchen|street] smelled of it.",
        f"Now they had everything. {h} stirred, {g} poured, and an hour later the {cake} was done.",
        f"<It has risen!> cried {h} in front of the oven.",
    )
    t.say(
        f"{h} cut the first piece and took it to {n}, while it was still warm.",
        f"{n} came to eat it with them, [in a clean collar|with flowers|in a good mood], and stayed until the lamps were lit.",
        f"<Who gets the biggest piece?> asked {g}. <{n},> said {h}, <because it is {n}'s {missing}.>",
    )
    t.say(
        f"<It tastes better than any other,> said {n}. <That is because three of us made it,> said {h}.",
        "Since then they bake together [every Sunday|once a month], and something is always missing, so somebody has to be asked.",
        f"And the next time {n} needed something, {n} knew where to knock.",
    )


def cannot_sleep(t: Teller) -> None:
    """A child cannot sleep at night."""
    h, g = cast.child(t), cast.elder(t)
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"One night {h} could not sleep.",
        f"It was late, and the whole house was asleep, all but {h}.",
        f"The clock struck [nine|ten], and {h} was still awake.",
    )
    t.say(
        f"{h.he} turned to the left and {h.he} turned to the right.",
        f"{h.he} counted sheep, but the sheep [ran away|would not stand in line].",
        f"The pillow was too hot, the blanket was too [heavy|short], and {h.his} feet were cold.",
    )
    noise, cause, calm = t.draw.one(
        (
            ("a tapping at the window", "the branch of the pear tree", "It only wants to say good night"),
            ("a scratching in the wall", "a mouse with a nut", "It is bringing supper to its children"),
            (
                "a creaking on the stairs",
                "the old wood, which was getting cold",
                "The stairs stretch before they sleep",
            ),
            ("a soft call outside", "an owl on the roof", "She is calling her children home"),
            ("a drip, drip, drip", "the tap in the kitchen", "It is counting the seconds for us"),
            ("a rustling in the corner", "a moth in a paper bag", "It was looking for the moon"),
            ("a humming in the dark", "the wind in the keyhole", "It knows only one song"),
        )
    )
    t.say(
        f"And then there was {noise}.",
        f"Then {h.he} heard something. It was {noise}.",
    )
    t.say(
        f"<{g}!> called {h}. {g} came in with a candle. <What is it?> <I hear {noise},> said {h}.",
        f"{h} took {h.his} blanket and went to find {g}. <There is {noise},> {h.he} whispered.",
    )
    t.say(
        f"<Let us see who it is,> said {g}. They [listened|tiptoed along|looked], and it was {cause}.",
        f"{g} listened. Then {g} smiled and showed {h} what it was: {cause}.",
        f"Hand in hand they went to look. It was not a monster. It was only {cause}.",
    )
    t.say(f"<{calm},> said {g}.", f"<Is that all?> asked {h}. <That is all,> said {g}. <{calm}.>")
    t.paragraph()
    way = t.draw.below(3)
    if way == 0:
        t.say(
            f"<But I am still awake,> said {h}. <Then let us think of the day,> said {g}. <What was the best thing?>",
            f"<Tell me three good things about today,> said {g}, and sat down on the bed.",
        )
        a, b, c = t.draw.some(
            ("the frog in the well", "the red leaf I found", "the smell of the bread", "the race with the dog",
             "the cloud like a fish", "the joke about the goose", "the first strawberry", "the new song",
             "the swing", "the snail on the gate", "the warm bath", "the letter from far away"), 3,
        )  # fmt: skip
        t.say(
            f"<There was {a},> said {h}, <and {b}.> {h} yawned. <And {c}.>",
            f"<First, {a},> said {h}. <Second, {b}. Third, {c}. That is three,> said {h}, and yawned.",
        )
    elif way == 1:
        t.say(
            f"{g} made some hot milk, and they sat at the window and looked at the [stars|moon|dark garden].",
            "They sat on the stairs together, wrapped in one blanket, and shared a cup of hot milk.",
        )
        t.say(
            f"<Do the stars sleep?> asked {h}. <Yes,> said {g}, <but in the daytime.>",
            f"<Who puts the moon to bed?> asked {h}. <The sun does,> said {g}. <They take turns.>",
            f"<Do fish sleep?> asked {h}. <They do,> said {g}, <with their eyes open.>",
        )
    else:
        t.say(
            f"{g} began to tell a story about a [bear|king|snail|giant] who could not sleep either.",
            f"So {g} sang the song about the [boat|lamb|mill] that {g} had sung when {h} was very small.",
        )
        t.say(
            f"{h} wanted to know how it ended, but {h.his} eyes [closed|fell shut] in the middle.",
            f"{h} listened with closed eyes, to hear better.",
        )
    t.paragraph()
    t.say(
        f"And before {g} had blown out the candle, {h} was asleep.",
        f"<Good night,> said {g}. There was no answer, because {h} was asleep.",
        f"{g} waited a little. Then {g} went out on tiptoe, for {h} was fast asleep.",
        f"The last thing {h} heard was {noise}, and now it sounded like a friend.",
    )
