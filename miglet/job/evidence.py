"""Everything that the signs of one run have shown so far, in one value.

Evidence only grows: a sign adds to it and takes nothing back, in whatever order the
sources are read. It travels between processes as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, field, replace
from typing import Any

from miglet.errors import BadMessage
from miglet.job import signs
from miglet.job.signs import KINDS, RESULTS, SOURCES, Sign, identity_of
from miglet.messages.codec import Value, frozen_value
from miglet.messages.events import JobIdentity


@frozen_value
class Evidence(Value):
    """What is known about a run and the one job that it may have had."""

    #: Whether our hooks were to report, so that their silence means something.
    hooks_expected: bool = True
    #: When each kind of sign was first seen (wall time), by its name.
    first: Mapping[str, float] = field(default_factory=dict)
    #: Which source showed that kind first.
    sources: Mapping[str, str] = field(default_factory=dict)
    #: The last result that each source claims, as far as its claims count.
    results: Mapping[str, str] = field(default_factory=dict)
    #: The job as all sources together describe it, the most trusted first.
    identity: JobIdentity = JobIdentity()
    #: Which source each value of the identity is from.
    described_by: Mapping[str, str] = field(default_factory=dict)
    #: The first text that came with a kind of sign.
    texts: Mapping[str, str] = field(default_factory=dict)
    #: The Worker's exit status as the Listener's log claims it.
    worker_code: int | None = None
    version: str | None = None

    def add(self, sign: Sign) -> Evidence:
        """This evidence and what `sign` adds to it."""
        learn = _LEARN.get(type(sign))
        return _add_first(learn(self, sign) if learn else self, sign)

    def saw(self, kind: type[Sign]) -> bool:
        """Whether there was such a sign."""
        return kind.__name__ in self.first

    def at(self, kind: type[Sign]) -> float | None:
        """When (wall time) such a sign was first seen."""
        return self.first.get(kind.__name__)

    def text(self, kind: type[Sign]) -> str | None:
        """What the first such sign said."""
        return self.texts.get(kind.__name__)

    @property
    def job_seen_at(self) -> float | None:
        """Wall time of the first sign that a job is on the machine, or None."""
        return min((self.first[name] for name in self._of_job()), default=None)

    @property
    def job_source(self) -> str | None:
        """The source of that first sign."""
        names = sorted(self._of_job(), key=self.first.__getitem__)
        return self.sources.get(names[0]) if names else None

    @property
    def name(self) -> str | None:
        """The job's display name: its author's text, for people only."""
        return self.identity.name

    @property
    def printed(self) -> str | None:
        """The result that the Listener printed, or else logged, last."""
        return self.results.get("output") or self.results.get("runner_log")

    def as_json(self) -> dict[str, Any]:
        """The JSON form: at most 32 KiB, because every text is cut when it is read."""
        return asdict(self)

    @staticmethod
    def of_json(document: Mapping[str, Any]) -> Evidence:
        """The evidence that `as_json` gave; raises BadMessage for anything else.

        Kinds, sources and results that this version does not know are left out.
        """
        try:
            return _restore(document)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadMessage(f"not the evidence of a run: {error!r}") from error

    def _of_job(self) -> list[str]:
        return [name for name in self.first if name in KINDS and KINDS[name].of_job]


def _restore(document: Mapping[str, Any]) -> Evidence:
    code, version = document["worker_code"], document["version"]
    return Evidence(
        hooks_expected=bool(document["hooks_expected"]),
        first={k: float(v) for k, v in document["first"].items() if k in KINDS},
        sources={k: str(v) for k, v in document["sources"].items() if v in SOURCES},
        results={
            source: result
            for source, result in document["results"].items()
            if source in SOURCES and result in RESULTS
        },
        identity=identity_of(document["identity"]),
        described_by={
            name: source
            for name, source in document["described_by"].items()
            if source in SOURCES
        },
        texts={k: str(v) for k, v in document["texts"].items() if k in KINDS},
        worker_code=None if code is None else int(code),
        version=None if version is None else str(version),
    )


def _add_first(evidence: Evidence, sign: Sign) -> Evidence:
    kind = type(sign).__name__
    if evidence.first.get(kind, float("inf")) <= sign.at:
        return evidence
    return replace(
        evidence,
        first={**evidence.first, kind: sign.at},
        sources={**evidence.sources, kind: sign.source},
    )


def _describe(evidence: Evidence, source: str, identity: JobIdentity) -> Evidence:
    """A value stands unless a source that is trusted more tells another."""
    better = {
        name: value
        for name, value in vars(identity).items()
        if value is not None and _trusted_more(source, evidence.described_by.get(name))
    }
    return replace(
        evidence,
        identity=replace(evidence.identity, **better),
        described_by={**evidence.described_by, **dict.fromkeys(better, source)},
    )


def _trusted_more(source: str, than: str | None) -> bool:
    return than is None or SOURCES.index(source) < SOURCES.index(than)


def _learn_name(evidence: Evidence, sign: Any) -> Evidence:
    return _describe(evidence, sign.source, JobIdentity(name=sign.name or None))


def _learn_identity(evidence: Evidence, sign: Any) -> Evidence:
    return _describe(evidence, sign.source, sign.identity)


def _learn_result(evidence: Evidence, sign: Any) -> Evidence:
    return replace(evidence, results={**evidence.results, sign.source: sign.result})


def _learn_worker_code(evidence: Evidence, sign: Any) -> Evidence:
    return replace(evidence, worker_code=sign.code)


def _learn_version(evidence: Evidence, sign: Any) -> Evidence:
    return replace(evidence, version=evidence.version or sign.version)


def _learn_text(evidence: Evidence, sign: Any) -> Evidence:
    return replace(evidence, texts={type(sign).__name__: sign.text, **evidence.texts})


_LEARN: dict[type[Sign], Callable[[Evidence, Any], Evidence]] = {
    signs.JobRunning: _learn_name,
    signs.JobIdentified: _learn_identity,
    signs.JobResult: _learn_result,
    signs.WorkerEnded: _learn_worker_code,
    signs.RunnerVersion: _learn_version,
    signs.JobSkipped: _learn_text,
    signs.HookRefused: _learn_text,
    signs.ConnectError: _learn_text,
    signs.VersionDeprecated: _learn_text,
    signs.RegistrationGone: _learn_text,
    signs.RunnerFailed: _learn_text,
}
