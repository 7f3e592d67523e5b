"""The facts for the answers: about animals, colours, opposites, days, numbers and things. All are common knowledge."""

from __future__ import annotations

from typing import NamedTuple


class Animal(NamedTuple):
    """An animal: the sound that it makes, its food, its home with the preposition, and the name of its young."""

    name: str
    sound: str
    food: str
    home: str
    young: str


ANIMALS = (
    Animal("cow", "moo", "grass", "in a barn", "calf"),
    Animal("hen", "cluck", "grain", "in a henhouse", "chick"),
    Animal("dog", "woof", "meat", "in a kennel", "puppy"),
    Animal("cat", "meow", "mice", "in a house", "kitten"),
    Animal("sheep", "baa", "grass", "in a fold", "lamb"),
    Animal("duck", "quack", "water plants", "on a pond", "duckling"),
    Animal("horse", "neigh", "hay", "in a stable", "foal"),
    Animal("pig", "oink", "turnips", "in a sty", "piglet"),
    Animal("goose", "honk", "grass", "on a pond", "gosling"),
    Animal("owl", "hoot", "mice", "in a hollow tree", "owlet"),
    Animal("frog", "croak", "flies", "in a pond", "tadpole"),
    Animal("bee", "buzz", "nectar", "in a hive", "grub"),
    Animal("lion", "roar", "meat", "in the grassland", "cub"),
    Animal("mouse", "squeak", "seeds", "in a hole", "pup"),
    Animal("wolf", "howl", "meat", "in a den", "cub"),
    Animal("snake", "hiss", "frogs", "under a stone", "snakelet"),
)

COLOURS = (
    ("grass", "green"), ("snow", "white"), ("coal", "black"), ("a lemon", "yellow"), ("a tomato", "red"),
    ("a carrot", "orange"), ("the sky", "blue"), ("milk", "white"), ("a leaf", "green"), ("the sun", "yellow"),
    ("a strawberry", "red"), ("chocolate", "brown"), ("a raven", "black"), ("a cucumber", "green"),
    ("a plum", "purple"), ("butter", "yellow"),
)  # fmt: skip

OPPOSITES = (
    ("big", "small"), ("hot", "cold"), ("old", "young"), ("wet", "dry"), ("fast", "slow"), ("high", "low"),
    ("full", "empty"), ("happy", "sad"), ("light", "dark"), ("long", "short"), ("loud", "quiet"), ("open", "closed"),
    ("heavy", "light"), ("hard", "soft"), ("early", "late"), ("clean", "dirty"), ("strong", "weak"), ("right", "wrong"),
)  # fmt: skip

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

LEGS = (
    ("dog", "four"), ("hen", "two"), ("spider", "eight"), ("bee", "six"), ("horse", "four"), ("owl", "two"),
    ("cat", "four"), ("ant", "six"), ("goose", "two"), ("cow", "four"),
)  # fmt: skip

# What a person does with a thing.
USES = (
    ("broom", "sweep the floor"), ("spoon", "eat soup"), ("key", "open a door"), ("needle", "sew a button on"),
    ("saw", "cut wood"), ("hammer", "drive in a nail"), ("kettle", "boil water"), ("pen", "write a letter"),
    ("ladder", "reach the roof"), ("bucket", "carry water"), ("comb", "tidy your hair"), ("lamp", "see in the dark"),
    ("spade", "dig a hole"), ("rope", "tie up a boat"), ("oven", "bake bread"), ("umbrella", "keep dry in the rain"),
)  # fmt: skip
