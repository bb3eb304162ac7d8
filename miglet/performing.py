"""How each effect is performed: one function an effect, and one table.

`Emit` is not here: events are recorded, with the new state, before anything is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from miglet import logger, orders
from miglet.config.settings import Settings
from miglet.crew import NAMES, UPLINK
from miglet.house import House
from miglet.state import effects
from miglet.state.vm import Policy


def tell(house: House, effect: effects.Tell) -> None:
    """An order goes to its worker."""
    house.supervisor.tell(effect.order.to, effect.order)


def set_timer(house: House, effect: effects.SetTimer) -> None:
    """A timer starts, or starts anew."""
    house.timers.start(effect.name, time.monotonic() + effect.seconds)


def stop_timer(house: House, effect: effects.StopTimer) -> None:
    """A timer is forgotten."""
    house.timers.stop(effect.name)


def post(house: House, effect: effects.Post) -> None:
    """A fact is treated next."""
    house.inbox.appendleft(effect.fact)


def adopt(house: House, effect: effects.Adopt) -> None:
    """Changed settings hold at once, here and in every worker."""
    known = house.known
    known.settings = Settings.of(effect.settings)
    known.origins = effect.origins or known.origins
    house.vm = house.vm.having(policy=Policy.of(known.settings))
    change_level(house, effects.ChangeLevel(known.settings.logging.level))
    house.supervisor.tell_all(orders.ApplySettings(effect.settings))


def change_level(house: House, effect: effects.ChangeLevel) -> None:
    """Every process logs from another level on."""
    house.known.log_level = effect.level
    logger.set_level(effect.level)
    house.supervisor.tell_all(orders.SetLevel(effect.level))


def stop_crew(house: House, effect: effects.StopCrew) -> None:
    """All workers may go but the one that delivers."""
    house.supervisor.release(name for name in NAMES if name != UPLINK)


def leave(house: House, effect: effects.Exit) -> None:
    """The loop ends."""
    house.exit_status = effect.status


PERFORM: dict[type[effects.Effect], Callable[[House, Any], None]] = {
    effects.Tell: tell,
    effects.SetTimer: set_timer,
    effects.StopTimer: stop_timer,
    effects.Post: post,
    effects.Adopt: adopt,
    effects.ChangeLevel: change_level,
    effects.StopCrew: stop_crew,
    effects.Exit: leave,
}
