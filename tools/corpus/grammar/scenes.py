"""Scenes that many stories share: meeting the hero, the day, a meal, the way home, the end."""

from __future__ import annotations

from grammar.person import Person
from grammar.telling import Teller
from grammar.words import DRINKS, FOODS, HOMES, LOVES, SKY, TRAITS, WHEN


def meet(t: Teller, h: Person, *, age: bool = True) -> None:
    """Introduce the hero. Without the age if the story itself gives it."""
    home, trait = t.draw.one(HOMES), t.draw.one(TRAITS)
    love = t.draw.one(LOVES)
    if age and t.draw.chance(1, 8):
        t.say(f"{h} was [six|seven|eight] years old and lived {home}.")
        return
    if t.draw.chance(1, 8):
        t.say(f"Everyone in the [village|street|town] knew {h}, the {h.kind} who loved {love}.")
        return
    t.say(
        f"Once there was a [little|small|young|{trait}] {h.kind} named {h}.",
        f"{h} was a {trait} {h.kind} who lived {home}.",
        f"{home} lived a [little|young|{trait}] {h.kind} named {h}.",
        f"{h} lived with {h.his} [mother|father|family|grandmother] {home}.",
        f"There was once a {trait} {h.kind} whose name was {h}.",
        f"A {trait} {h.kind} named {h} lived {home}.",
    )
    t.maybe(
        f"{h.he} loved {love}.",
        f"{h.he} liked {love} [more than anything|best of all|every day].",
        f"What {h.he} liked best was {love}.",
    )


def when(t: Teller, weather: str = "") -> str:
    """Return the beginning of a sentence: "One sunny morning"."""
    return t.one(*WHEN[weather or t.draw.one(("sunny", "cloudy", "windy", "rainy"))])


def sky(t: Teller, weather: str) -> None:
    t.maybe(*SKY[weather])


def meal(t: Teller, host: Person, *guests: Person) -> None:
    """Something to eat, as comfort or reward."""
    food, drink = t.draw.one(FOODS), t.draw.one(DRINKS)
    eaters = " and ".join(str(guest) for guest in guests)
    t.say(
        f"Then {host} [made|brought] {food} and {drink}, and {eaters} ate until nothing was left.",
        f"{host} put {food} on the table, and {eaters} [ate every bit|ate hungrily|had two helpings].",
        f"Afterwards {eaters} had {food} in the kitchen, and {host} poured some {drink}.",
        f"{eaters} had {food} for supper, and {host} told a [funny|long|very old] story.",
    )


def thanks(t: Teller, who: Person, to: Person) -> None:
    t.say(
        f"<Thank you, {to},> said {who}. <[You are very kind|I will not forget this|You helped me so much].>",
        f"<How can I thank you?> asked {who}. <You do not have to,> said {to} [with a smile|and smiled|shyly].",
        f"<Thank you!> said {who}. <That was [kind|very kind|good] of you, {to}.>",
        f"{who} [took {to}'s hand|gave {to} a hug|smiled at {to}] and said, <Thank you, {to}.>",
    )


def home_again(t: Teller, h: Person) -> None:
    """The way back."""
    t.say(
        f"{h} [ran|skipped|walked|hurried] home [as fast as {h.he} could|in the last light|with a warm heart|singing].",
        f"When {h} came home, the [lamps were lit|kettle was singing|table was set|windows were bright].",
        f"The sun was [low|going down|almost gone] when {h} [came|got|walked] home.",
        f"On the way home {h} [hummed a tune|told the whole story to the moon|did not feel tired at all].",
    )


def tells(t: Teller, h: Person, g: Person) -> None:
    """The hero tells a person at home about the day, and this person says what it was worth."""
    t.say(
        f"That evening {h} told {g} [everything|the whole story|all about it].",
        f"At supper {h} told {g} what had happened.",
        f"<What did you do today?> asked {g}, and {h} told {g.him} [everything|all of it from the beginning].",
    )


def night(t: Teller, h: Person) -> None:
    """An ending at bedtime."""
    t.say(
        f"That night {h} [slept well|fell asleep with a smile|fell asleep at once|dreamed of it all again].",
        f"When {h} lay in bed that night, {h.he} [smiled in the dark|felt warm and happy|was still smiling].",
        f"The moon looked in at the window, and {h} was already [asleep|dreaming].",
        f"{h} closed {h.his} eyes and thought, <What a [good|strange|fine|long] day!>",
        f"{h} [yawned|pulled up the blanket|blew out the candle] and was asleep before [{h.he} could count to ten"
        f"|the clock struck eight|the moon came up].",
    )


def since_then(t: Teller, h: Person, f: Person) -> None:
    """An ending for two who became friends, or better friends."""
    t.say(
        f"From that day on, {h} and {f} were [friends|good friends|the best of friends].",
        f"After that, {h} and {f} [played together every day|met every Saturday|did everything together].",
        f"{h} and {f} walked home [side by side|arm in arm|hand in hand], and neither of them was [sad|cross] any more.",
        f"And whenever {h} [laughed|sang], {f} [laughed|sang] too.",
    )


def glad(t: Teller, h: Person) -> None:
    t.say(
        f"{h} felt [warm inside|as light as a feather|ten feet tall|very happy|very proud].",
        f"{h} was so [happy|glad|proud] that {h.he} [danced around the room|laughed out loud|could not stop smiling].",
        f"{h} smiled from ear to ear.",
        f"{h.he} had never been so [happy|proud|glad].",
    )


def sorry_for(t: Teller, h: Person) -> None:
    """The hero is sad."""
    t.say(
        f"{h} [sat down on the step|hid {h.his} face|looked at the floor] and [began to cry|did not say a word].",
        f"A tear ran down {h}'s [cheek|nose].",
        f"{h} felt a lump in {h.his} throat.",
        f"{h} was so [sad|upset|unhappy] that {h.he} [did not want to eat|could not speak|forgot to have lunch].",
    )


def think(t: Teller, h: Person) -> None:
    t.say(
        f"{h} [sat down on a stone|scratched {h.his} head|closed {h.his} eyes] and thought hard.",
        f"{h} thought [about it for a long time|and thought|hard].",
        f"{h} did not know what to do [at first|at all|next]. Then {h.he} had an idea.",
    )


def once(t: Teller, a: Person) -> None:
    """Introduce the animal that the story is about."""
    place = t.one(
        "in a wood", "at the edge of a meadow", "under an old beech tree", "by a quiet brook", "on a green hill"
    )
    t.say(
        f"Once there was a {a.kind} named {a} who lived {place}.",
        f"{place} lived a [cheerful|busy|quiet|curious] {a.kind} named {a}.",
        f"Long ago a {a.kind} named {a} had [his|her] home {place}.".replace("[his|her]", a.his),
    )
