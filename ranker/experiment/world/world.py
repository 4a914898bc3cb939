"""A world with known truth: what every user would do with any slate follows from its settings.

Everything is a function of `WorldSettings`, its seed included; a world holds no state. What happens
over days (who comes, what is crowded) is played in `days`.

Shapes: ``D`` devices, ``P`` positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranker.experiment.world.examination import examination_by_device, examination_curve
from ranker.experiment.world.items import Items, draw_items
from ranker.experiment.world.randomness import FloatArray
from ranker.experiment.world.settings import WorldSettings
from ranker.experiment.world.users import Users, draw_users


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class World:
    """The users, the items, and how far down people look.

    Attributes:
        examination: P(examined) by device and position; the slate's P positions, [D, P].
    """

    settings: WorldSettings
    users: Users
    items: Items
    examination: FloatArray


def make_world(settings: WorldSettings) -> World:
    """Make the world of ``settings``: the same one every time."""
    curve = examination_curve(settings.examination, num_positions=settings.slate_size)
    decays = np.array([device.position_decay for device in settings.devices])
    return World(
        settings=settings,
        users=draw_users(settings),
        items=draw_items(settings),
        examination=examination_by_device(curve, position_decays=decays),
    )
