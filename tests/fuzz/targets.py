"""What is fuzzed: a table of every reader of bytes that a stranger wrote.

Each target is a function of one input. It feeds the input to the product as the product
would get it, and holds the outcome against its docstring: whatever is raised is a
finding, but for the errors that the reader documents, which the target itself expects.
The seeds are in `corpus/NAME`.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import socket
import sqlite3
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import requests
from requests.structures import CaseInsensitiveDict

from miglet.bootstrap import probe
from miglet.commands import validation
from miglet.config import load, sources
from miglet.config.schema import (
    KEYS,
    duration_text,
    parse_duration,
    parse_size,
    size_text,
)
from miglet.config.settings import Settings
from miglet.control import rpc
from miglet.controller import answers, credentials
from miglet.controller.client import ClockOffset
from miglet.ctl import view
from miglet.errors import (
    BadMessage,
    ControllerError,
    ControllerUnreachable,
    CredentialUnusable,
    Fault,
    Misconfigured,
)
from miglet.formats import (
    canonical_command,
    one_line,
    parse_http_date,
    parse_rfc3339,
    rfc3339,
    strict_json,
)
from miglet.http.retry import retry_after
from miglet.http.transport import (
    LONGEST_BODY_BYTES,
    Answer,
    PlainConnection,
    PlainPool,
    TlsAdapter,
    Transport,
    excerpt,
    host_of,
)
from miglet.job import hooks, signs
from miglet.job.diag import DiagFolder, JobMessage
from miglet.job.evidence import Evidence
from miglet.job.listener_output import LAST_LINES_BYTES, Tail
from miglet.job.perflog import PerfLog
from miglet.job.signs import Sign
from miglet.job.tail import Budget, readable
from miglet.job.verdict import RunnerExit, verdict
from miglet.journal.ledger import EVENT_BYTES, clip_event
from miglet.journal.ledger import encode as journal_bytes
from miglet.messages import codec
from miglet.messages.codec import Message
from miglet.messages.events import JobIdentity
from miglet.messages.facts import (
    CommandReceived,
    ControllerAnswered,
    JobIdentified,
    RunnerExited,
    RunnerLaunched,
    SettingsLoaded,
    TerminationNoticed,
)
from miglet.metadata import tokens
from miglet.metadata.attempts import Limits, MetadataUnavailable
from miglet.metadata.cloud import Metadata
from miglet.metadata.clouds import CLOUDS
from miglet.metadata.credential import usable_token
from miglet.metadata.fetch import MachineNames, MetadataRead
from miglet.metadata.notices import Notices
from miglet.metadata.server import Server
from miglet.metadata.settings import settings_in, user_data_layer
from miglet.metadata.sources import machine_layer
from miglet.redaction import redact, redact_tree
from miglet.reference import api
from miglet.reference.event_import import find_events
from miglet.reference.problems import Problem
from miglet.reference.store import CommandQueue, Store, arrival, open_database
from miglet.runner.installation import registered, runner_version
from miglet.runner.registration_errors import interpret, interpret_removal
from miglet.workers.command_poller import parse_command
from tests.sample_settings import sample_settings

CORPUS = Path(__file__).with_name("corpus")

#: The most of an input where the product itself reads no less.
LIMIT_BYTES = 64 * 1024

#: When everything here happens: no reader may depend on it.
NOW = 1768473000.0


class Target(NamedTuple):
    """One reader of bytes of strangers."""

    name: str
    #: Feeds it one input; raises what no input may make the product raise.
    run: Callable[[bytes], None]
    #: What must hold for every input.
    invariant: str

    @property
    def corpus(self) -> Path:
        """The folder of seeds, and of inputs that once were findings."""
        return CORPUS / self.name

    def seeds(self) -> dict[str, bytes]:
        """What is in the folder, by the names of the files."""
        files = sorted(self.corpus.iterdir()) if self.corpus.is_dir() else []
        return {file.name: file.read_bytes() for file in files}


TARGETS: dict[str, Target] = {}


def target(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Adds a function, under its name, to the table."""
    assert run.__doc__
    TARGETS[run.__name__] = Target(run.__name__, run, run.__doc__)
    return run


#: What JobCompleted may say of a job.
RESULTS = ("succeeded", "failed", "cancelled", "abandoned", "unknown")

# What must hold of outputs.


def require_one_line(text: str, limit: int = 20_000) -> None:
    """A text for a log, a terminal or a line of a protocol."""
    assert text.isprintable(), f"not printable: {text!r:.200}"
    assert len(text) <= limit, f"{len(text)} characters: {text!r:.200}"


def require_no_control_characters(text: str) -> None:
    """A text in which no terminal sees an instruction; a tab is none."""
    wrong = [c for c in text if unicodedata.category(c) == "Cc" and c != "\t"]
    assert not wrong, f"control characters in {text!r:.200}"


def require_text(*texts: str | None) -> None:
    """What can be written to a file, a socket and a database."""
    for text in texts:
        if text is not None:
            assert isinstance(text, str)
            text.encode()


def require_parent_accepts(message: Message) -> None:
    """A worker's fact that its parent refuses would be the worker's end."""
    assert type(codec.decode(codec.encode(message))) is type(message)


def require_faults(faults: Iterable[Fault]) -> None:
    """Mistakes as they are printed and sent, with a reason."""
    for fault in faults:
        require_one_line(str(fault))
        assert fault.reason and fault.source


def require_signs(found: Iterable[Sign]) -> None:
    """What was seen of a job can be reported, and decided upon."""
    evidence = Evidence()
    for sign in found:
        evidence = evidence.add(sign)
    clamped = {kind: min(max(at, 0.0), NOW) for kind, at in evidence.first.items()}
    document = {**evidence.as_json(), "first": clamped}
    exited = RunnerExited("run", document, RunnerExit().as_json(), {}, [])
    require_parent_accepts(exited)
    assert Evidence.of_json(document).identity == evidence.identity
    require_identity(evidence.identity)
    decided = verdict(evidence, RunnerExit(known=True, worker_signal=9))
    assert decided.result in RESULTS
    require_text(decided.cause, *decided.reasons)


def require_identity(identity: JobIdentity) -> None:
    require_parent_accepts(JobIdentified("run", "hook", asdict(identity)))
    require_text(identity.name, identity.ref, identity.actor, identity.repository)
    for number in (identity.job_id, identity.run_id):
        assert number is None or (number.isascii() and number.isdigit())


# How inputs come to readers of files and of HTTP.


@functools.cache
def scratch() -> Path:
    """A folder for files of inputs; it goes with this process."""
    memory = Path("/dev/shm")
    place = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
    # Kept alive by the cache.
    scratch.place = place  # type: ignore[attr-defined]
    return Path(place.name)


def folder_with(name: str, content: bytes) -> Path:
    """A folder in which the file `name` has this content, and nothing else is."""
    folder = scratch() / name.replace("/", "-")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        file.write(content)
    return folder


def answers_in(data: bytes) -> Iterator[Answer]:
    """The HTTP answers of an input: a status, headers, an empty line and a body each.

    A line of four dashes is between two of them.
    """
    for part in data.split(b"\n----\n"):
        head, _, body = part.partition(b"\n\n")
        status, *lines = head.decode("latin-1").split("\n")
        number = int(status) if re.fullmatch("[0-9]{3}", status) else 200
        fields = (line.partition(":") for line in lines)
        headers = {name.strip(): value.strip() for name, _, value in fields}
        yield Answer(number, CaseInsensitiveDict(headers), body)


def text_of(data: bytes) -> str:
    """An input as text, in which anything may be: halves of surrogate pairs too."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


# The table: what other processes of ours send.


@target
def queue_message(data: bytes) -> None:
    """Only BadMessage; what is taken can be sent on, logged and kept in the journal."""
    try:
        message = codec.decode(data)
    except BadMessage as error:
        assert str(error)
        return
    fields = vars(message)
    event = {"type": "Error", "data": redact_tree(fields), "metadata": {}}
    assert len(journal_bytes(clip_event(event))) <= EVENT_BYTES
    require_one_line(one_line(repr(message)), 10 * codec.LIMIT)
    try:
        again = codec.encode(message)
    except BadMessage:
        return  # Its numbers are longer when they are written out.
    assert codec.decode(again) == message


# What operators send.


@target
def control_request(data: bytes) -> None:
    """Only RpcError; every answer, also to what is none, is one line of JSON."""
    try:
        request = rpc.request_in(data)
        line = rpc.reply(request.id, request.params)
    except rpc.RpcError as error:
        line = rpc.failure(None, error)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert json.loads(line)["jsonrpc"] == "2.0"
    assert len(line) <= rpc.REPLY_BYTES


@target
def control_answer(data: bytes) -> None:
    """What miglet-ctl shows of any status has no character that a terminal obeys."""
    try:
        status = strict_json(data)
    except ValueError:
        return
    if not isinstance(status, dict):
        return
    for line in (*view.status_lines(status), *view.problems(status)):
        require_no_control_characters(line)
        require_text(line)


# What the controller answers.


@target
def controller_answer(data: bytes) -> None:
    """Only ControllerError, in one line; a token is one word, a delay 1 to 300 s."""
    call = list(answers.Call)[len(data) % len(answers.Call)]
    answer = next(answers_in(data))
    require_clock(answer.headers.get("Date"))
    try:
        answers.check(call, answer, "VMStarted")
        require_answer(call, answer)
    except ControllerError as error:
        require_one_line(str(error))
        delay = getattr(error, "retry_after", None)
        assert delay is None or 1 <= delay <= 300


def require_answer(call: answers.Call, answer: Answer) -> None:
    """Read the body of a good answer."""
    if call is answers.Call.REGISTRATION_TOKEN:
        token = answers.registration_token(answer.body)
        require_text(token.runner_group, *token.labels)
        assert token.token.isascii() and token.token.isprintable()
        assert token.expires_at is None or token.expires_at >= answers.EARLIEST_EXPIRY
    elif call is answers.Call.REMOVAL_TOKEN:
        assert answers.removal_token(answer.body).token.isascii()
    elif call is answers.Call.COMMANDS:
        for command in answers.commands(answer, "vm-1")[:16]:
            require_parent_accepts(parse_command(command))


def require_clock(date: str | None) -> None:
    clock = ClockOffset()
    clock.note(date, NOW, NOW + 0.1)
    require_parent_accepts(ControllerAnswered("events", clock.seconds))


class SentConnection(PlainConnection):
    """A connection over which the input has come already, and nothing more will."""

    sent: ClassVar[bytes] = b""

    def _new_conn(self) -> socket.socket:
        ours, self.theirs = socket.socketpair()
        self.theirs.sendall(self.sent)
        self.theirs.shutdown(socket.SHUT_WR)
        return ours

    def close(self) -> None:
        super().close()
        if hasattr(self, "theirs"):
            self.theirs.close()


class SentPool(PlainPool):
    ConnectionCls = SentConnection


@target
def http_answer(data: bytes) -> None:
    """Any bytes are an answer of at most 1 MiB, or one line that says why not."""
    SentConnection.sent = data
    auth = SimpleNamespace(type="none", ca_path=None)
    settings = SimpleNamespace(endpoint="http://c.test/", proxy=None, auth=auth)
    transport = Transport(settings, TlsAdapter(None, {"http": SentPool}))
    try:
        answer = transport.send(requests.Request("GET", "http://c.test/x"), 1.0)
    except ControllerUnreachable as error:
        require_one_line(str(error), 500)
        return
    finally:
        transport.close()
    assert 0 <= answer.status <= 999 and len(answer.body) <= LONGEST_BODY_BYTES
    require_clock(answer.headers.get("Date"))
    require_one_line(answers.describe(answer), 500)


@target
def command(data: bytes) -> None:
    """A command has faults, or parameters that its schema allows; never an error."""
    try:
        raw = strict_json(data)
    except ValueError:
        return
    received = parse_command(raw)
    require_parent_accepts(received)
    for fault in received.faults:
        require_one_line(fault)
    if not received.faults:
        require_validation(received)


def require_validation(received: CommandReceived) -> None:
    """What the child task makes of a command that is well-formed."""
    parameters = received.parameters
    faults = list(validation.command_faults(received.type, parameters))
    require_text(*faults)
    update = canonical_command(validation.UPDATE)
    if faults or canonical_command(received.type) != update:
        return
    try:
        changed = load.update(standing(), parameters.get("config", parameters))
    except Misconfigured as error:
        require_faults(error.faults)
        return
    assert Settings.of(changed.settings.as_dict()) == changed.settings


@functools.cache
def standing() -> load.Loaded:
    """A configuration that commands would change."""
    origins = {key: load.Origin("default") for key in KEYS}
    return load.Loaded(sample_settings(), origins)


@target
def token_file(data: bytes) -> None:
    """A token is one printable ASCII word of a bounded length, or there is none."""
    try:
        token = credentials.token_in(data, "/nonexistent/token")
    except CredentialUnusable as error:
        require_one_line(str(error))
    else:
        assert token.isascii() and token.isprintable() and " " not in token
    text = data.decode("ascii", "replace")
    assert usable_token(text) in (None, text.strip())


# What the metadata servers of clouds answer.


class Script(Server):
    """A metadata server that gives the answers of an input in turn, and then 404."""

    def __init__(self, data: bytes) -> None:
        super().__init__("http://127.0.0.1/", {}, Limits(tries=1))
        self.pending = answers_in(data)

    def ask(self, *_: Any, **__: Any) -> Answer:
        return next(self.pending, Answer(404, {"Metadata-Flavor": "Google"}, b""))


def require_cloud(name: str, data: bytes) -> None:
    """What a cloud's class makes of a server that answers with the input."""
    try:
        require_metadata(CLOUDS[name](Script(data)).metadata(float("inf")))
    except MetadataUnavailable as error:
        require_one_line(str(error))
    notices = Notices(CLOUDS[name](Script(data)))
    for notice in notices.poll(1.0):
        require_parent_accepts(TerminationNoticed(*notice))
        require_one_line(notice.kind)
    require_one_line(notices.error)


def require_metadata(found: Metadata) -> None:
    """What is ours of the metadata reaches the parent, and is judged there."""
    ours = settings_in(found)
    names = {each: getattr(ours.machine, each) for each in MachineNames.__annotations__}
    require_parent_accepts(MetadataRead(names, ours.token, list(ours.secrets)))
    for layer in (ours.layer, machine_layer(ours.machine)):
        require_faults(layer.faults)
        require_layer(layer)


@target
def gce_metadata(data: bytes) -> None:
    """Only MetadataUnavailable, in one line; notices and settings are acceptable."""
    require_cloud("gce", data)


@target
def aws_metadata(data: bytes) -> None:
    """Only MetadataUnavailable, in one line; notices and settings are acceptable."""
    require_cloud("aws", data)


@target
def azure_metadata(data: bytes) -> None:
    """Only MetadataUnavailable, in one line; notices and settings are acceptable."""
    require_cloud("azure", data)


@target
def metadata_token(data: bytes) -> None:
    """Only TokenUnusable, in one line; a token is one printable word."""
    github = SimpleNamespace(org="octo-org", runner_group=None, labels=())
    settings: Any = SimpleNamespace(github=github)
    text = data.decode("utf-8", "replace").strip()
    try:
        token = tokens.usable(text, "miglet-registration-token", settings)
    except tokens.TokenUnusable as error:
        require_one_line(str(error))
    else:
        assert token.token.isascii() and token.token.isprintable()


# Configuration.


@target
def settings_document(data: bytes) -> None:
    """Valid settings that come back the same, or faults that each fit on a line."""
    try:
        layer = sources.document_layer("miglet.yaml", sources.decoded(data))
    except sources.Unreadable as error:
        require_one_line(str(error))
        return
    require_layer(layer)


def require_layer(layer: sources.Layer) -> None:
    """The configuration that `layer` and what is required of others make."""
    required = "pool_id=p", "vm_id=v", "org_id=o", "controller.endpoint=https://c.test"
    lower = sources.command_line_layer(required)
    layers = sources.Layers(metadata=layer, machine=lower)
    try:
        loaded = load.load(layers)
    except Misconfigured as error:
        require_faults(error.faults)
        usable = load.fallback_settings(layers)
        assert usable is None or Settings.of(usable.as_dict()) == usable
        return
    settings, rows = loaded.settings.as_dict(), load.explanation(loaded)
    assert Settings.of(json.loads(json.dumps(settings))) == loaded.settings
    require_parent_accepts(SettingsLoaded(settings, rows))


@target
def user_data(data: bytes) -> None:
    """Settings or faults where the first line says that it is ours, else nothing."""
    layer = user_data_layer(data)
    require_faults(layer.faults)
    require_layer(layer)
    if not data.lstrip(b"\xef\xbb\xbf").startswith(b"#"):
        assert not layer.values and not layer.faults


@target
def overlay(data: bytes) -> None:
    """JSON for UpdateConfig: a configuration that is valid, or faults."""
    try:
        value = strict_json(data)
    except ValueError:
        return
    require_layer(sources.overlay_layer(sources.UPDATE, value))


@target
def duration_and_size(data: bytes) -> None:
    """Only ValueError; what is read is finite, and written so that it is read again."""
    text = text_of(data)
    for parse, write in ((parse_duration, duration_text), (parse_size, size_text)):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert 0 <= value < 1e28
        # The schema allows no more, so that a larger one is in no setting.
        if value <= LARGEST_SETTING:
            assert abs(parse(write(value)) - value) <= max(1e-6, value * 1e-9)


LARGEST_SETTING = max(key.rules.get("maximum", 0) for key in KEYS.values())


# Text formats.


@target
def json_document(data: bytes) -> None:
    """Only ValueError; what is read can be written as UTF-8 and is then the same."""
    try:
        value = strict_json(data)
    except ValueError as error:
        assert str(error)
        return
    written = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    assert strict_json(written) == value


@target
def time_of_day(data: bytes) -> None:
    """No error; a time is one that can be written and is read again the same."""
    text = text_of(data)
    for at in (parse_rfc3339(text), parse_http_date(text)):
        if at is not None and at >= 0:
            again = parse_rfc3339(rfc3339(at))
            assert again is not None and abs(again - at) < 0.0011
    asked = retry_after(text, text)
    assert asked is None or 1 <= asked <= 300
    require_clock(text)


@target
def line_of_text(data: bytes) -> None:
    """Escaped text is printable, redacted text does not change when redacted again."""
    text = text_of(data)
    require_one_line(one_line(text), 12 * LIMIT_BYTES)
    require_one_line(excerpt(text), 200)
    require_one_line(host_of(text), 200)
    require_no_control_characters(readable(data))
    require_text(view.clean(text))
    require_no_control_characters(view.clean(text))
    redacted = redact(text)
    assert redact(redacted) == redacted


@target
def http_head(data: bytes) -> None:
    """Any answer has a status from 0 to 999, or ends as a connection does."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            answer = probe.ask(ours, "GET /", "host", time.monotonic() + 10.0)
        except OSError:
            return
        assert 0 <= answer.status <= 999


# What the runner and its jobs write.


@target
def hook_report(data: bytes) -> None:
    """A refusal with a reason, or an identity that can be reported."""
    folder = folder_with("job-started.json", data)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        report = hooks.read_report(descriptor, "job-started")
    finally:
        os.close(descriptor)
    if isinstance(report, hooks.Refusal):
        require_one_line(report.reason, 200)
        return
    assert report is not None
    require_identity(report.identity)
    at = 0.0 if report.at is None else report.at
    require_signs([signs.JobIdentified(at, "hook", report.identity)])
    for text in (report.identity.name, report.identity.ref, report.identity.actor):
        require_no_control_characters(text or "")


@target
def runner_environment(data: bytes) -> None:
    """What the runner's `.env` replaces is said in one line."""
    folder = folder_with(".env", data)
    require_one_line(hooks.replaced(folder, Path("/usr/lib/miglet/hooks")), 500)


@target
def listener_output(data: bytes) -> None:
    """Signs that can be reported, and last lines that fit their message."""
    folder = folder_with("output", data)
    tail = Tail(folder / "output", Budget(1 << 20))
    try:
        found = tail.read(NOW)
        found += tail.finish(NOW)
        lines = tail.last_lines(20)
    finally:
        tail.close()
    require_signs(found)
    assert len(json.dumps(lines)) <= LAST_LINES_BYTES
    for line in lines:
        require_no_control_characters(line)


@target
def listener_log(data: bytes) -> None:
    """Signs that can be reported."""
    require_log("Runner_20260115-103000-utc.log", data)


@target
def worker_log(data: bytes) -> None:
    """Signs that can be reported."""
    require_log("Worker_20260115-103000-utc.log", data)


def require_log(name: str, data: bytes) -> None:
    logs = DiagFolder(folder_with(name, data), lambda: NOW, Budget(1 << 20))
    try:
        found = logs.read(NOW)
        assert found or name.startswith("Runner")
        require_signs([*found, *logs.finish(NOW)])
    finally:
        logs.close()


@target
def job_message(data: bytes) -> None:
    """An identity that can be reported, found in no more than the limit."""
    message = JobMessage()
    for line in itertools.takewhile(lambda _: not message.ended, data.split(b"\n")):
        message.add(line)
    require_identity(message.identity)


@target
def perf_log(data: bytes) -> None:
    """Signs that can be reported."""
    log = PerfLog(folder_with("Worker.perf", data), Budget(1 << 20))
    try:
        require_signs(log.read())
    finally:
        log.close()


@target
def runner_file(data: bytes) -> None:
    """A registration, whose id has at most 18 digits, or none."""
    found = registered(folder_with(".runner", data))
    if found is None:
        return
    require_text(found.agent_name, found.pool_name, found.git_hub_url)
    assert found.agent_id is None or 0 <= found.agent_id < 10**18
    runner = {"run_id": "run", "name": "runner", "agent_id": found.agent_id}
    require_parent_accepts(RunnerLaunched(runner))


@target
def runner_release(data: bytes) -> None:
    """A version of a reasonable length, or none."""
    version = runner_version(folder_with("bin/Runner.Listener.deps.json", data))
    assert version is None or len(version) <= 40
    runner = {"run_id": "run", "name": "runner", "version": version}
    require_parent_accepts(RunnerLaunched(runner))


@target
def config_sh_output(data: bytes) -> None:
    """An outcome with one of the known categories, and a message of bounded length."""
    output = data.decode("utf-8", "replace")
    for found in (interpret(1, output, ()), interpret_removal(1, output)):
        assert not found.good and found.category in ("transient", *FAILURES)
        require_text(found.message)
        require_one_line(found.message, 500)


FAILURES = ("infrastructure", "permanent", "misconfig")


# What the reference controller reads.


@target
def agent_event(data: bytes) -> None:
    """Only Problem; an event that the contract allows can be stored, twice too."""
    try:
        event = strict_json(data)
        api.check(event, "event")
    except (ValueError, Problem) as error:
        assert str(error) or isinstance(error, Problem)
        return
    store = Store(reference_database())
    store.meet(event["vm_id"], NOW)
    first = store.store_event(event["vm_id"], event, arrival())
    again = store.store_event(event["vm_id"], event, arrival())
    assert again.value in ("duplicate", "conflict") or again is first


@functools.cache
def reference_database() -> sqlite3.Connection:
    """A database that all inputs share, as all machines do."""
    return open_database(Path(":memory:"))


@target
def agent_heartbeat(data: bytes) -> None:
    """Only Problem; a heartbeat that the contract allows can be stored."""
    try:
        heartbeat = strict_json(data)
        api.check(heartbeat, "heartbeat")
    except (ValueError, Problem):
        return
    store = Store(reference_database())
    store.meet(heartbeat["vm_id"], NOW)
    store.store_heartbeat(heartbeat["vm_id"], heartbeat, arrival())


@target
def operator_command(data: bytes) -> None:
    """Only Problem; a command that the contract allows can be queued."""
    try:
        request = strict_json(data)
        api.check(request, "command-request")
        name = api.command_type(request["type"])
        api.check_parameters(name, request.get("parameters") or {})
    except (ValueError, Problem):
        return
    queue = CommandQueue(reference_database())
    assert queue.add("vm-1", {**request, "type": name}, NOW)


@target
def imported_events(data: bytes) -> None:
    """Events that can be sent on, in their order, and problems of bounded length."""
    lines = data.decode("utf-8", "replace").splitlines(keepends=True)
    found = find_events(lines)
    order = [(event["vm_id"], event["sequence"]) for event in found.events]
    assert order == sorted(order)
    for event in found.events:
        json.dumps(event, allow_nan=False).encode()
        require_text(event["id"], event["vm_id"], event["type"])
    for problem in found.problems:
        require_text(problem)
        assert len(problem) < 300
