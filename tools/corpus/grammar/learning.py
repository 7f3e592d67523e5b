"""Stories about practice, courage and things made by hand."""

from __future__ import annotations

from grammar import cast, scenes, words
from grammar.telling import Teller


def skill(t: Teller) -> None:
    """A child learns something by failing first."""
    h, g = cast.child(t), cast.elder(t)
    f = cast.friend(t, h)
    weather, do, fail, trick, done = t.draw.one(
        (
            ("sunny", "swim", "went under and swallowed water", "Lie on the water as if it were a bed",
             "swam from the bank to the little island"),
            ("", "ride a bicycle", "fell into the hedge", "Look where you want to go, not at the wheel",
             "rode all the way to the mill"),
            ("", "whistle", "blew, and only air came out", "Make your lips as small as a pea",
             "whistled so loudly that three dogs came"),
            ("snowy", "skate", "sat down hard on the ice", "Bend your knees and push to the side",
             "skated around the whole pond"),
            ("", "juggle", "dropped all three balls", "Throw them up, not away",
             "kept three apples in the air and then ate one"),
            ("", "play the flute", "made it squeak like a mouse", "Breathe slowly, from your belly",
             "played a whole song without a mistake"),
            ("rainy", "knit", "got tangled in the wool", "In, around, through and off",
             "knitted a scarf as long as the table"),
            ("sunny", "row a boat", "turned in a circle", "Pull with both arms at the same time",
             "rowed across the lake in a straight line"),
            ("", "read", "mixed up the letters", "Say the sounds one by one, and then together",
             "read a whole page aloud"),
            ("", "stand on {his} hands", "tipped over into the grass",
             "Look at the ground between your hands", "stood there until everyone had counted to ten"),
        )
    )  # fmt: skip
    do = do.format(his=h.his)
    scenes.meet(t, h)
    t.say(
        f"All the children could {do}, only {h} could not." if "his" not in do and "her" not in do
        else f"There was one thing that {h} could not do: {do}.",
        f"{h} wanted to learn to {do}.",
        f"There was one thing {h} wished for: to be able to {do}.",
    )  # fmt: skip
    t.paragraph()
    t.say(
        f"{scenes.when(t, weather)}, {h} tried it for the first time. {h.He} {fail}.",
        f"{h} tried, and {fail}. {h.he} tried again, and {fail} once more.",
    )
    t.say(
        f"Some of the others laughed. {h}'s ears grew hot.",
        f"<I will never learn it,> said {h}.",
        f"<It is too hard,> said {h}, and kicked a stone.",
    )
    t.say(
        f"<How did you learn it?> {h} asked {f}. <I fell a hundred times,> said {f}. <How often did you fall?> <Three times,> said {h}.",
        f"<I could not do it either,> said {f}, <until I could.>",
        f"<You cannot do it yet,> said {g}. <Yet is a small word, but you must not leave it out.>",
    )
    teacher = g if t.draw.chance(1, 2) else f
    t.say(
        f"{teacher} showed {h} a trick. <{trick},> said {teacher}.",
        f"Then {teacher} asked, <Shall I tell you the secret? {trick}.>",
    )
    t.paragraph()
    t.say(
        f"So {h} practised every day, [before school|after supper|in the mornings], when nobody was looking.",
        f"{h} practised on Monday, on Tuesday and on Wednesday. On Thursday {h.he} was so tired that {h.he} cried a little.",
        f"From then on {h} practised. {h.his} [knees were blue|fingers were sore|arms ached], but {h.he} did not stop.",
    )
    t.say(
        f"Each time it went a little better, so little that {h} hardly noticed it.",
        "One day it worked for as long as you need to say your own name.",
        f"Sometimes it went worse than the day before. <That is how it is,> said {g}. <Learning goes up and down like the hills.>",
    )
    t.maybe(
        f"{h} wanted to give up. But then {h.he} thought, <One more time.>",
        f"<Once more,> {h} always said to {h.himself}. <Only once more.>",
        f"{f} came and practised too, so that {h} was not alone.",
    )
    t.paragraph()
    t.say(
        f"And then, on an ordinary {t.expand(words.DAYS)}, {h} {done}.",
        f"It was in the third week that it happened: {h} {done}.",
        f"Nobody had expected it. {h} {done}, just like that.",
    )
    t.say(
        f"<I can do it!> cried {h}. <I can do it!>",
        f"<Did you see that?> asked {h}. <I saw it,> said {g}, who had been standing at the window all the time.",
        f"<Again!> cried {f}, and {h} did it again.",
    )
    t.say(
        f"The next year a smaller child asked {h} how to {do.replace(h.his + ' hands', 'two hands')}. <{trick},> said {h}.",
        f"<Was it hard?> asked {f}. <Yes,> said {h}. <Now it is easy, and I do not know why it was hard.>",
        f"{h} looked at {h.his} hands and wondered what else they could learn.",
        f"<What will you learn next?> asked {g}. {h} had a long list.",
    )


def building(t: Teller) -> None:
    """Children build something, and it does not work at first."""
    h = cast.child(t)
    f, g = cast.friend(t, h), cast.elder(t)
    what, stuff, place, use = t.draw.one(
        (
            ("tree house", "boards and rope", "in the big walnut tree", "sat up there and watched the birds come home"),
            ("bird house", "a wooden box and straw", "on a pole by the fence", "waited, and in May a pair of titmice moved in"),
            ("little boat", "bark, a stick and a leaf", "beside the brook", "let it sail down to the sea"),
            ("dam", "stones and mud", "in the brook", "had a pond where the frogs came to sing"),
            ("hut", "branches and fern", "in the wood", "ate their supper in it while the rain fell outside"),
            ("soap box car", "crates and four old wheels", "in the yard", "rolled down the whole street with flying scarves"),
            ("puppet theatre", "a big box and a curtain", "in the barn", "played for eleven children and one goat"),
            ("windmill", "paper, a pin and a pole", "on the hill", "watched it turn and turn"),
            ("swing", "a plank and two ropes", "under the old oak", "flew up to the leaves and back"),
        )
    )  # fmt: skip
    t.say(
        f"{h} and {f} wanted to build a {what}.",
        f"<What shall we do today?> asked {f}. <Let us build a {what},> said {h}.",
        f"{scenes.when(t)}, {h} had a plan. <A {what},> said {h}, <{place}!>",
    )
    t.say(
        f"They gathered {stuff} and carried everything to a spot {place}." if place.startswith("in the yard") else
        f"They looked for {stuff}, and found what they needed behind the [barn|shed|mill].",
        f"{h} drew it on paper. {f} said that it should be bigger.",
        f"<Do you know how?> asked {f}. <No,> said {h}, <but we will know when it is done.>",
    )  # fmt: skip
    t.paragraph()
    t.say(
        f"{h} held, and {f} [tied|hammered|stacked]. After an hour it stood. After an hour and a minute it fell down.",
        f"They worked all morning. Then {f} leaned on it, and everything fell over with a crash.",
        "In the afternoon it was finished. In the night it came apart.",
    )
    t.say(
        f"<That was because of you,> said {h}. <No, because of you,> said {f}. They were quiet for a while.",
        f"<Now we can stop,> said {f}. <Or we can begin,> said {h}, <because now we know how not to do it.>",
        f"{f} laughed first. Then {h} laughed too, because it looked so silly.",
    )
    t.say(
        f"They went to ask {g}. <What did you begin with?> asked {g}. <With the top,> said {h}. {g} only smiled.",
        f"{g} came by and looked at it. <What does it stand on?> {g} asked, and walked on. They looked at each other.",
        f"<Should I do it for you?> asked {g}. <No,> they said. <Only tell us one thing: what is wrong?> <It needs something crosswise,> said {g}.",
    )
    t.paragraph()
    t.say(
        "The second time they began at the bottom and were not in such a hurry.",
        "So they started again, and this time they did not skip anything.",
        f"This time {h} measured everything with a string, and {f} checked it.",
    )
    t.maybe(
        f"{f} hit {f.his} thumb and hopped around on one leg.",
        "It rained, and they worked on under an umbrella.",
        "A curious [goat|hen|cow] came and ate the plan, but they did not need it any more.",
        f"{h} had the idea to put [two big stones|a beam|a heavy log] on each side, and that was the best idea of the day.",
    )
    t.say(
        f"At last it was finished, {place}. They shook it, and it held.",
        f"In the evening the {what} was done, and it did not even wobble.",
        f"<Jump!> said {h}. <You jump!> said {f}. It held.",
    )
    t.paragraph()
    t.say(f"They {use}.", f"From then on, whenever they had time, they {use}.")
    t.say(
        f"<It is a little crooked,> said {f}. <So are we,> said {h}.",
        f"<Who built it?> asked the people. <We did,> said {h} and {f}, both at once.",
        f"{g} came to see it and took off {g.his} hat. <Solid work,> {g} said.",
        f"<Tomorrow we will build another one,> said {h}, <twice as big.>",
    )


def fear(t: Teller) -> None:
    """A child is afraid of something and faces it."""
    h, g = cast.child(t), cast.elder(t)
    what, where, first, near, truth = t.draw.one(
        (
            ("the big black dog", "at the corner house", "it barked and shook its chain", "its tail was wagging",
             "It was only lonely, because everyone ran past"),
            ("the dark cellar", "under the kitchen", "it was as black as a boot down there", "there was a smell of apples",
             "There was nothing in it but jars and a sleeping cat"),
            ("the deep end of the pool", "behind the school", "the water looked like green glass", "the water held me up",
             "It is the same water as in the shallow end, only more of it"),
            ("the geese", "by the pond", "they hissed and stretched their necks", "they stopped and looked",
             "They have to look after their little ones"),
            ("the old house", "at the end of the lane", "its windows were like empty eyes", "somebody was playing the piano",
             "An old lady lived there, and she was glad of visitors"),
            ("the high bridge", "over the gorge", "it swung and you could look down between the boards",
             "the rope was as thick as my arm", "It had held a whole herd of cows the day before"),
            ("the tall slide", "in the park", "the ladder had no end", "you could see the sea from the top",
             "It was over before I could be afraid"),
        )
    )  # fmt: skip
    scenes.meet(t, h)
    t.say(
        f"But {h} was afraid of {what} {where}.",
        f"There was only one thing that {h} feared: {what} {where}.",
    )
    t.say(
        f"The first time {h} saw it, {first}, and {h} ran home." if not what.endswith("geese") else
        f"The first time {h} saw them, {first}, and {h} ran home.",
        f"{h} always made a long way round, so as not to go near.",
        f"At night {h.he} dreamed of it.",
    )  # fmt: skip
    t.paragraph()
    t.say(
        f"{scenes.when(t)}, {h}'s [ball|hat|kite] landed right there." if "house" in where or "house" in what else
        f"{scenes.when(t)}, all the others went there, and {h} stayed behind alone. {g} saw it.",
        f"<Why do you take the long way?> asked {g} one day. {h} did not want to say it. Then {h.he} did.",
        f"<I am a coward,> said {h}. <Who says so?> asked {g}. {h} looked at the ground.",
    )  # fmt: skip
    t.say(
        f"<Everybody is afraid of something,> said {g}. <I am afraid of [moths|thunder|the dentist].> <You?> said {h}.",
        f"<Being brave does not mean that you are not afraid,> said {g}. <It means that you go with shaking knees.>",
        f"<Do not do it all at once,> said {g}. <Take one step each day.>",
    )
    t.say(
        f"Then {h} asked, <Will you hold my hand?> <As long as you like,> said {g}.",
        f"{g} waited a little. <Shall I come with you?> <Only half of the way,> said {h}.",
    )
    t.paragraph()
    t.say(
        f"On the first day {h} took ten steps and turned back. On the second day {h.he} took twenty.",
        f"They went together. {h}'s heart beat like a drum.",
        f"{h} took a deep breath. One step. Another step.",
    )
    t.say(
        f"Then {h} noticed something: {near.replace('my arm', h.his + ' arm').replace('me up', h.him + ' up')}.",
        f"When {h} came nearer, {near.replace('my arm', h.his + ' arm').replace('me up', h.him + ' up')}.",
    )
    t.say(
        f"{h} went a little closer, and then all the way.",
        f"{h} let go of {g}'s hand and did not even notice it.",
        f"<Go on,> said {g} softly. And {h} went on.",
    )
    t.say(f"<{truth},> {h} said afterwards.", f"<Well?> asked {g}. <{truth},> said {h}.")
    t.paragraph()
    t.say(
        f"<And your knees?> asked {g}. <They shook,> said {h}, <but they came along.>",
        f"The next morning {h} took the short way to school, whistling.",
        f"A week later a little boy stood there and cried. <Give me your hand,> said {h}. <I know this one.>",
        f"{h} still has fears, but now {h.he} knows what to do with them: go and look.",
    )
    t.maybe(
        f"{g} wrote it in the calendar: today {h} was brave.",
        f"That day {h} grew, though you could not have measured it with a ruler.",
    )


def show(t: Teller) -> None:
    """A performance, and stage fright."""
    h, m = cast.child(t), cast.teacher(t)
    f, g = cast.friend(t, h), cast.elder(t)
    act, slip = t.draw.one(
        (
            ("sing a song alone", "forgot the second verse"),
            ("say a long poem", "did not know how it went on"),
            ("play the moon in the school play", "tripped over the long silver cloak"),
            ("beat the big drum", "lost one of the sticks"),
            ("play a tune on the fiddle", "felt a string snap"),
            ("dance the part of the fox", "stepped on {his} own tail"),
        )
    )
    slip = slip.format(his=h.his)
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"At school {m} said, <Next [week|month] there will be a show. Who would like to {act}?>",
        f"The school was getting ready for a [summer|winter|spring] show. Somebody had to {act}.",
    )
    t.say(
        f"{h} looked under the table. But {m} said, <{h}, I think you can do it.>",
        f"{h} put up {h.his} hand before {h.he} knew it. <Good,> said {m}.",
        f"{f} called out, <{h} can do that best!> and everyone turned around.",
    )
    t.say(
        f"{h} practised in the [bath|cow shed|attic] and on the way to school.",
        f"At home {h} did it for {g}, for the cat, and for the mirror, and all three liked it.",
    )
    t.paragraph()
    t.say(
        f"Then the evening came. Behind the curtain {h} peeped through a hole and saw all the people. {h.his} mouth was dry.",
        f"On the evening of the show the hall was full. {h}'s knees felt like [butter|jelly|wet paper].",
    )
    t.say(
        f"<I cannot do it,> whispered {h}. <Look at {g},> said {f}. <{g} is sitting in the first row. Do it only for {g.him}.>",
        f"<I have forgotten everything,> said {h} to {f}. <So have I,> said {f}. <Let us forget it together.>",
        f"<What if it goes wrong?> asked {h}. <Then it will be funny,> said {m}, <and people like to laugh too.>",
    )
    t.say(
        f"The curtain opened. {h} began softly, and then louder.",
        f"{h} stepped into the light and began.",
    )
    t.say(
        f"It went well until the middle. Then {h} {slip}. It was very quiet in the hall.",
        f"And then it happened: {h} {slip}. Somebody coughed.",
    )
    t.say(
        f"{h} saw {g} in the first row. {g} nodded. So {h} took a breath, began again, and it was as if nothing had happened.",
        f"{f} came out from behind the curtain and stood beside {h}. Together they went on.",
        f"{h} had to laugh, and because {h} laughed, the whole hall laughed, and after that everything was easy.",
        f"{h} bowed as if it were part of the show. The people clapped, and {h} went on, much braver than before.",
    )
    t.paragraph()
    t.say(
        f"At the end the clapping would not stop. {m} had to close the curtain twice.",
        "When it was over, the people stamped their feet, and somebody threw a flower.",
    )
    t.say(
        f"<Were you afraid?> asked {g} on the way home. <Yes,> said {h}. <But only until I began.>",
        f"<The mistake was the best part,> said {m}. <It was yours.>",
        f"<May I do it again next year?> asked {h}.",
        f"<Thank you,> said {h} to {f}. <What for?> asked {f}. <For standing there,> said {h}.",
    )


def gift(t: Teller) -> None:
    """A child must find a present with very little money."""
    h = cast.child(t)
    g = cast.elder(t)
    f = cast.friend(t, h)
    scenes.meet(t, h)
    t.paragraph()
    t.say(
        f"{g}'s birthday was on {t.expand(words.DAYS)}, and {h} had no present.",
        f"Soon it would be {g}'s birthday. {h} wanted to give {g.him} something [fine|beautiful|special].",
    )
    coins = t.one("three", "four", "five")
    t.say(
        f"{h} turned {h.his} money box upside down. Out came {coins} coins and a button.",
        f"{h} had {coins} coins, and that was not much.",
    )
    wish = t.one("a silver brooch", "a warm coat", "a clock with a bird in it", "a pair of fur boots", "a golden pen")
    t.say(
        f"In the shop window there was {wish}. It cost a hundred coins.",
        f"{h} went from shop to shop. {wish} was too dear, and the cheap things were ugly.",
    )
    t.say(
        f"<What does {g} like?> asked {f}. {h} thought. <{g} likes it when I [sing|read aloud|help],> {h.he} said, <but that is not a present.>",
        f"<I cannot buy anything,> said {h}. <Then make something,> said {f}.",
        f"<What would you like best?> {h} asked {g} carefully. <Some time,> said {g}, and laughed. <But that is not for sale.>",
    )
    t.paragraph()
    match t.draw.below(4):
        case 0:
            t.say(
                f"So {h} bought red wool for all {h.his} coins, and knitted under the blanket every night.",
                f"{h} borrowed two needles and began to knit a scarf. It had holes, and they were not on purpose.",
            )
            t.say(
                f"It was thin at one end and wide at the other, because {h} got better as {h.he} went on.",
                "When it was done, it was [as long as a cow|too short for a giant and too long for a dwarf].",
            )
            t.say(
                f"{g} wrapped it around {g.his} neck three times. <I have never been so warm,> said {g}.",
                f"{g} wore it all day, in the house as well, and would not take it off at supper.",
            )
        case 1:
            t.say(
                f"{h} sewed ten sheets of paper together, so that they were a little book.",
                f"{h} took paper and paint and made a small book with ten pages.",
            )
            t.say(
                "One was for a walk, one was for the dishes, one was for reading aloud, and one was for doing nothing together.",
                f"On every page there was something {h} would do: carry wood, rub {g}'s feet, tell a joke, bring tea in bed.",
            )
            t.say(
                f"{g} read it slowly, page by page, and had to take off {g.his} glasses. <This is time,> said {g}.",
                f"<I will use one now,> said {g}, and they went for a walk, though it was raining.",
            )
        case 2:
            t.say(
                f"{h} went into the fields, picked [poppies|cornflowers|daisies] and dried them between heavy books. "
                f"With glue and a [frame|board] they became a picture of the house, with {g} at the window.",
                f"{h} walked along the shore and gathered shells, only the ones with a hole in them. "
                f"{f} helped to tie them to a ring of willow, and when the wind came, they rang like little bells.",
            )
            t.say(
                f"{g} hung it over the table, where everyone could see it. It is still there.",
                f"<Where did you buy this?> asked {g}. <Nowhere,> said {h}. <You cannot buy it.>",
            )
        case _:
            t.say(
                f"With {f} {h} learned {g}'s favourite song in secret, behind the barn, where only the hens could hear it.",
                f"{h} asked all the neighbours for one story about {g}, and wrote them down.",
            )
            t.say(
                f"It took a whole week. <Why do you come home so late?> asked {g}. <It is a secret,> said {h}.",
                "But at last everything was ready.",
            )
            t.say(
                f"When {h} stood on the chair and began, {g} put down the cup and did not move until the end.",
                f"{g} laughed, and then {g} cried a little, and then {g} laughed again.",
            )
    t.paragraph()
    t.say(
        f"<It is the best present I ever got,> said {g}. And {h} still had the button.",
        f"That evening {h} asked, <Do you really like it?> <I like it because I can see you in it,> said {g}.",
        f"Nobody thought of {wish} any more.",
        f"And {h} found out that it is almost nicer to give a present than to get one. Almost.",
    )
