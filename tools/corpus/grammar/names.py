"""The names of people and animals in the stories."""

# Only a few, so that a small model sees each name often enough to distinguish them.
GIRLS = ("Mia", "Lily", "Anna", "Ruby", "Nora", "Clara", "Rosa", "Hana", "Ivy", "Priya")
BOYS = ("Tom", "Ben", "Sam", "Max", "Leo", "Finn", "Omar", "Jack", "Hugo", "Kofi")

# Name, whether female, kind of person.
PARENTS = (("Mama", True, "woman"), ("Papa", False, "man"))
GRANDPARENTS = (("Grandma", True, "woman"), ("Grandpa", False, "man"))
RELATIVES = (("Aunt Jo", True, "woman"), ("Uncle Ned", False, "man"))
NEIGHBOURS = (
    ("Mrs Bell", True, "woman"),
    ("Mr Hill", False, "man"),
    ("Mrs Reed", True, "woman"),
    ("Mr Stone", False, "man"),
    ("Mrs Lark", True, "woman"),
    ("Mr Wood", False, "man"),
)
TEACHERS = (("Miss Page", True, "woman"), ("Mr Cole", False, "man"), ("Miss Green", True, "woman"))

DOGS = ("Biscuit", "Patch", "Bramble", "Rusty")
CATS = ("Pepper", "Smoky", "Tiger", "Mittens")

# Animals that talk.
CREATURE_NAMES = (
    ("Thistle", True), ("Nutmeg", True), ("Clover", True), ("Fern", True),
    ("Acorn", False), ("Burr", False), ("Moss", False), ("Pebble", False),
)  # fmt: skip
MALE_KINDS = ("bull", "ox", "stag", "rooster")
