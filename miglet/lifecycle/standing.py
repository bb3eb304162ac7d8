"""What the runner-watcher is to do in a given state: told again after its death."""

from __future__ import annotations

from miglet.lifecycle.common import hasty_grace
from miglet.lifecycle.vm import State, Vm
from miglet.messages.codec import Order
from miglet.messages.orders import DrainRunner, ProvideRunner, StopRunner, WatchRunner


def standing_orders(vm: Vm, now: float) -> list[Order]:
    """The orders that a new runner-watcher needs to go on where the last one died.

    `now` is monotonic: what is left until the machine's end decides how patient it is.
    """
    if vm.state is State.INITIALIZING or vm.flushing:
        return []
    orders: list[Order] = _about_runner(vm)
    if vm.state is State.DRAINING:
        orders.append(DrainRunner())
    if vm.state is State.SHUTTING_DOWN or vm.stopped_by:
        settle = vm.policy.drain_settle if vm.finished else 0.0
        orders.append(StopRunner(settle, hasty_grace(vm, now)))
    return orders


def _about_runner(vm: Vm) -> list[Order]:
    if vm.runner:
        return [WatchRunner(vm.runner["run_id"])]
    if vm.state is State.REGISTERING_RUNNER:
        # A registration that the dead watcher achieved is used, not repeated.
        spent = list(vm.spent_tokens)
        return [
            ProvideRunner(
                vm.name,
                keep_registration=True,
                spent_tokens=spent,
                former_run=vm.former_run,
            )
        ]
    return []
