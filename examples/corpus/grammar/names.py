"""Who may be in a story."""

GIRLS = (
    "Mia", "Lily", "Anna", "Ruby", "Nora", "Clara", "Rosa", "Ella", "Ivy", "Zoe",
    "Tess", "Maya", "Priya", "Amara", "Dina", "Lucy", "Hana", "Molly",
)  # fmt: skip
BOYS = (
    "Tom", "Ben", "Sam", "Max", "Leo", "Finn", "Oscar", "Jack", "Hugo", "Noah",
    "Eli", "Omar", "Kofi", "Luca", "Theo", "Ravi", "Peter", "Will",
)  # fmt: skip

# Name, whether female, what they are.
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
    ("Thistle", True), ("Nutmeg", True), ("Clover", True), ("Fern", True), ("Willow", True), ("Poppy", True),
    ("Acorn", False), ("Burr", False), ("Moss", False), ("Pebble", False), ("Reedy", False), ("Bracken", False),
)  # fmt: skip
MALE_KINDS = ("bull", "ox", "stag", "rooster")
