"""All schemas, by name."""

from __future__ import annotations

from collections.abc import Callable

from grammar import animals, at_home, fables, friends, learning, outdoors, town
from grammar.telling import Teller

Schema = Callable[[Teller], None]

SCHEMAS: dict[str, Schema] = {
    schema.__name__: schema
    for schema in (
        at_home.lost_thing, at_home.birthday, at_home.mended, at_home.storm, at_home.baking, at_home.cannot_sleep,
        friends.quarrel, friends.new_neighbour, friends.sharing, friends.truth, friends.promise, friends.race,
        outdoors.garden, outdoors.kite, outdoors.river, outdoors.fog, outdoors.snow, outdoors.treasure_hunt,
        learning.skill, learning.building, learning.fear, learning.show, learning.gift,
        town.market, town.stranger, town.errand, town.letter, town.music,
        animals.sick_animal, animals.nestling, animals.stray, animals.farm_work, animals.picnic,
        fables.small_helps_big, fables.boaster, fables.winter_store, fables.moon_lantern, fables.borrowed,
        fables.big_leap,
    )
}  # fmt: skip
