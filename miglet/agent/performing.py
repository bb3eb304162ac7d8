"""How each effect is performed: one function an effect, and one table.

`Emit` is not here: events are recorded, with the new state, before anything is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from miglet import logger
from miglet.agent.herald import present
from miglet.agent.house import House
from miglet.commands.intake import validation_task
from miglet.config.section import MalformedSettings
from miglet.config.settings import RUNTIME_KEYS, Settings
from miglet.lifecycle import effects
from miglet.lifecycle.table import change_policy
from miglet.lifecycle.vm import Policy
from miglet.messages import orders
from miglet.messages.events import Error
from miglet.messages.facts import RunKilled
from miglet.runner.launcher import runner_launcher
from miglet.supervisor.children import ChildTask, by_name
from miglet.supervisor.failpoints import reach
from miglet.supervisor.queues import Queue
from miglet.workers.registry import NAMES, UPLINK

#: Seconds that a child may take to kill a run.
KILL_SECONDS = 10.0


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
    """Changed settings hold at once, here and in every worker.

    They were validated in a child; here nobody is believed who changes what may not
    change at run time, such as the runner's user.
    """
    known = house.known
    before = known.settings
    try:
        settings = Settings.of(effect.settings)
        refuse_fixed_changes(before, settings)
    except MalformedSettings as error:
        house.emit(Error("infrastructure", "settings_refused", str(error), "arbiter"))
        return
    known.settings = settings
    known.origins = effect.origins or known.origins
    logger.set_redaction(settings.logging.redact_secrets)
    if settings.logging.level != before.logging.level:
        # Else a level that SetLogLevel has set stays.
        change_level(house, effects.ChangeLevel(settings.logging.level))
    house.supervisor.tell_all(orders.ApplySettings(effect.settings))
    house.vm, timers = change_policy(house.vm, Policy.of(settings), present())
    for timer in timers:
        PERFORM[type(timer)](house, timer)


def refuse_fixed_changes(before: Settings, after: Settings) -> None:
    """Raise MalformedSettings if a key changes that may not change at run time."""
    former = before.flat()
    for key, value in after.flat().items():
        if key not in RUNTIME_KEYS and value != former[key]:
            raise MalformedSettings(f"{key}: may not change at run time")


def change_level(house: House, effect: effects.ChangeLevel) -> None:
    """Every process logs from another level on."""
    house.known.log_level = effect.level
    logger.set_level(effect.level)
    house.supervisor.tell_all(orders.SetLevel(effect.level))


def accept_command(house: House, effect: effects.AcceptCommand) -> None:
    """A command is validated in a child."""
    reach("command.accepted")
    now = house.known.controllers_time(time.time())
    house.tasks.start(validation_task(effect.command, house.known.current(), now))


def kill_run(house: House, effect: effects.KillRun) -> None:
    """A child kills what the runner left, since no runner-watcher does."""
    settings = house.known.settings.as_dict()
    main = by_name(
        "miglet.agent.performing", "kill_recorded_run", settings, effect.run_id
    )
    failed = RunKilled(effect.run_id, "the child that was to do it failed")
    house.tasks.start(ChildTask("kill-run", main, KILL_SECONDS, failed))


def kill_recorded_run(queue: Queue, settings: dict[str, Any], run_id: str) -> None:
    """In a child: SIGKILL for all processes of this run."""
    run = runner_launcher(Settings.of(settings)).recorded()
    if run is None or run.run_id != run_id:
        queue.put(RunKilled(run_id, "there is no record of it"))
        return
    run.kill(KILL_SECONDS / 2)
    queue.put(RunKilled(run_id, "still alive" if run.alive() else "dead"))


def stop_workers(house: House, effect: effects.StopWorkers) -> None:
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
    effects.AcceptCommand: accept_command,
    effects.KillRun: kill_run,
    effects.StopWorkers: stop_workers,
    effects.Exit: leave,
}
