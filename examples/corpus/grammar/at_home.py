"""Stories in and around the house."""

from __future__ import annotations

from grammar import cast, scenes, words
from grammar.telling import Teller


def lost_thing(t: Teller) -> None:
    """Something is gone, and somebody or a thought helps to find it."""
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


def birthday(t: Teller) -> None:
    """A birthday that seems to be forgotten, or a cake that goes wrong."""
    h, g = cast.child(t), cast.parent(t)
    f = cast.friend(t, h)
    x, cake = words.toy(t), t.draw.one(words.SWEETS)
    years = t.one("six", "seven", "eight", "nine")
    scenes.meet(t, h)
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


def mended(t: Teller) -> None:
    """A broken thing is not thrown away but mended."""
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
        f"{scenes.when(t)}, when {h} [took it out|was using it|picked it up], {break_}.",
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


def baking(t: Teller) -> None:
    """Something is missing for the cake, and asking for it leads on."""
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
    """Night, and sleep does not come."""
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
