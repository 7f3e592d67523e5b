"""All schemas, by name."""

from __future__ import annotations

from collections.abc import Callable

from grammar import (
    animals,
    at_home,
    conscience,
    fables,
    fields,
    friends,
    kitchen_and_bed,
    learning,
    town,
    weather_and_water,
    wishes,
)
from grammar.telling import Teller

Schema = Callable[[Teller], None]

SCHEMAS: dict[str, Schema] = {
    schema.__name__: schema
    for schema in (
        animals.sick_animal, animals.nestling, animals.stray, animals.farm_work, animals.picnic,
        at_home.lost_thing, at_home.mended, at_home.storm,
        conscience.sharing, conscience.truth, conscience.promise,
        fables.small_helps_big, fables.boaster, fables.winter_store,
        fields.garden, fields.kite, fields.treasure_hunt,
        friends.quarrel, friends.new_neighbour, friends.race,
        kitchen_and_bed.birthday, kitchen_and_bed.baking, kitchen_and_bed.cannot_sleep,
        learning.skill, learning.building, learning.fear, learning.show, learning.gift,
        town.market, town.stranger, town.errand, town.letter, town.music,
        weather_and_water.river, weather_and_water.fog, weather_and_water.snow,
        wishes.moon_lantern, wishes.borrowed, wishes.big_leap,
    )
}  # fmt: skip
