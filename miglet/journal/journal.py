"""The journal: undelivered events, commands, and the state that a restart needs.

Owned by the arbiter's process alone; a forked child never touches it and ends with
``os._exit``. What a call wrote is on disk when it returns, all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any

from miglet.journal.failover import FailoverStorage, JournalFinding
from miglet.journal.ledger import (
    RECENT_ROWS,
    TABLES,
    Ledger,
    Row,
    body_of,
    clip_text,
    fetch,
    is_sound,
)
from miglet.messages.codec import Value, frozen_value
from miglet.supervisor.failpoints import reach


@frozen_value
class Counts(Value):
    """What became of all events since the machine's first, across restarts."""

    pending: int
    delivered: int
    rejected: int
    dropped: int
    #: `dropped` by class: chatter, report, milestone, damaged (wrong checksum), lost.
    dropped_by_class: Mapping[str, int]


@dataclass
class Journal:
    """Open it with `Journal.open`; no method raises but JournalUnusable.

    JournalUnusable means that even memory cannot hold the journal. A disk that fails
    or fills only makes it `degraded`.
    """

    storages: FailoverStorage
    boot_id: str
    #: The boot that wrote the saved state; None when there is none.
    saved_boot_id: str | None

    @classmethod
    def open(cls, candidates: Sequence[Path], boot_id: str) -> Journal:
        """Open the first usable of these files, or memory.

        Raises JournalInUse when another process has the file.
        """
        storages = FailoverStorage(candidates)
        saved = (_body(storages, "facts", "state") or {}).get("boot_id")
        if saved not in (None, boot_id):
            storages.report("other_boot", f"the saved state is of boot {saved}", {})
        return cls(storages, boot_id, saved)

    @property
    def degraded(self) -> str | None:
        """Why the journal is not in the first of its places; None while it is."""
        return self.storages.degraded

    def record(
        self,
        state: dict[str, Any] | None,
        events: Sequence[dict[str, Any]],
        commands: Mapping[str, dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """Save a step in one transaction; the events with their ``sequence``.

        A `state` of None leaves the saved one. A command is open until it has an
        ``outcome``. An event over 60 KiB is kept with its longest values clipped.
        """

        def step(ledger: Ledger) -> list[dict[str, Any]]:
            if state is not None:
                ledger.save_state(state, self.boot_id)
            ledger.save_commands(commands or {})
            return [ledger.add(event) for event in events]

        if state is None and not events and not commands:
            return []
        recorded = self.storages.write(step)
        if state is not None:
            self.saved_boot_id = self.boot_id
        reach("journal.recorded")
        return recorded

    def oldest(self, skipped: Collection[int] = ()) -> dict[str, Any] | None:
        """The event to deliver next, leaving out those with `skipped` sequences."""
        others = ", ".join(map(str, skipped))
        query = (
            f"SELECT * FROM pending WHERE sequence NOT IN ({others})"
            " ORDER BY sequence LIMIT 1"
        )
        while row := self.storages.read(lambda db: db.execute(query).fetchone()):
            if is_sound(row):
                return body_of(row)
            self.storages.write(methodcaller("drop_damaged", row))
        return None

    def pending(self, sequence: int) -> dict[str, Any] | None:
        """The undelivered event with this sequence."""
        return _body(self.storages, "pending", sequence)

    def undelivered(self) -> list[dict[str, Any]]:
        """Every event that is neither delivered nor rejected, in order."""
        query = "SELECT * FROM pending ORDER BY sequence"
        return list(map(body_of, self._sound_rows(query)))

    def delivered(self, sequence: int) -> None:
        """The event has arrived; one that is not pending changes nothing."""
        self.storages.write(lambda ledger: ledger.deliver(sequence))
        reach("journal.delivered")

    def refused(self, sequence: int, status: int | None, answer: str) -> None:
        """The controller refused the event with this HTTP status and answer."""
        self.storages.write(lambda ledger: ledger.reject(sequence, status, answer))

    def command(self, identity: str) -> dict[str, Any] | None:
        """The command with this id, open or done."""
        return _body(self.storages, "commands", clip_text(identity))

    def open_commands(self) -> dict[str, dict[str, Any]]:
        """Commands that were accepted and have no outcome, in their order."""
        query = "SELECT * FROM commands WHERE open = 1 ORDER BY place"
        return {row[0]: body_of(row) for row in self._sound_rows(query)}

    def state(self) -> dict[str, Any] | None:
        """The state last recorded, by whatever boot."""
        return (_body(self.storages, "facts", "state") or {}).get("state")

    def discard_state(self) -> None:
        """Forget the saved state: it belongs to another boot."""
        self.storages.write(lambda ledger: ledger.discard_state())
        self.saved_boot_id = None

    def recent(self, limit: int) -> list[dict[str, Any]]:
        """The newest events, oldest first, each with what became of it."""
        query = "SELECT * FROM recent ORDER BY sequence DESC LIMIT ?"
        found = reversed(self._sound_rows(query, max(0, min(limit, RECENT_ROWS))))
        return [dict(zip(TABLES["recent"], row[:-1], strict=True)) for row in found]

    def counts(self) -> Counts:
        """How many events wait, arrived, were refused, were dropped."""
        now = self.storages.storage.counters
        dropped = dict(now.dropped)
        total = sum(dropped.values())
        return Counts(now.pending, now.delivered, now.rejected, total, dropped)

    def take_findings(self) -> list[JournalFinding]:
        """The findings since the last call; each becomes one ``Error`` event.

        Drops since then are one finding, ``events_dropped``, with counts by class, as
        soon as there is room to report it.
        """
        return self.storages.take_findings()

    def close(self) -> None:
        """Close the file; it stays as large as it is."""
        self.storages.close()

    def _sound_rows(self, query: str, *values: int) -> list[Row]:
        found = self.storages.read(lambda db: db.execute(query, values).fetchall())
        return [row for row in found if is_sound(row)]


def _body(storages: FailoverStorage, table: str, key: int | str) -> Any:
    return body_of(storages.read(lambda db: fetch(db, table, key)))
