"""Log lines as other processes and people see them: real pipes, real processes."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
import textwrap

import pytest

from miglet import logger
from tests.support import Stopwatch, eventually

pytestmark = pytest.mark.integration

PRELUDE = """
import io, json, logging, os, signal, sys, threading, warnings
from miglet import logger, redaction
log = logging.getLogger("some.where")

def install(format="json", level="info", redact_secrets=True):
    who = dict(component="arbiter", vm_id="vm-1", pool_id="pool-1", org_id="org-1")
    logger.install(who, level, format, redact_secrets)

"""

SECRET = "open-sesame-42"


class Script(subprocess.Popen):
    """A process that does not outlive a failed test."""

    def __exit__(self, kind, *more):
        if kind:
            self.kill()
        super().__exit__(kind, *more)


def running(script: str, **options) -> Script:
    """A Python process that runs `script` with PRELUDE before it."""
    return Script(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", source(script)],
        **options,
    )


def source(script: str) -> str:
    return PRELUDE + textwrap.dedent(script)


def output_of(script: str, status: int = 0) -> tuple[str, str]:
    """What `script` writes to stdout and stderr; it must end with `status`."""
    with running(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == status, err.decode()
    return out.decode(), err.decode()


def lines_of(script: str, status: int = 0) -> list[dict]:
    """The JSON lines that `script` writes to stdout."""
    return [json.loads(line) for line in output_of(script, status)[0].splitlines()]


def test_a_json_line_says_who_when_and_for_which_job():
    [line] = lines_of(
        """
        install()
        logger.set_component("runner-watcher")
        logger.set_job("42", "777001", "trace-1")
        log.warning("hello %s", "you", extra={"attempt": 3})
        """
    )
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp")
    )
    assert line.pop("pid") > 1
    assert line == {
        "level": "warning",
        "component": "runner-watcher",
        "vm_id": "vm-1",
        "pool_id": "pool-1",
        "org_id": "org-1",
        "job_id": "42",
        "run_id": "777001",
        "trace_id": "trace-1",
        "logger": "some.where",
        "message": "hello you",
        "attempt": 3,
    }


def test_an_exception_comes_with_its_traceback():
    [line] = lines_of(
        """
        install()
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("oops")
        """
    )
    assert line["level"] == "error"
    assert line["exc_info"].endswith("ZeroDivisionError: division by zero")


def test_without_a_job_the_line_says_so():
    first, second = lines_of(
        """
        install()
        log.info("one")
        logger.set_job("1", "2", "3")
        logger.set_job(None, None, None)
        log.info("two")
        """
    )
    assert first["job_id"] is None and second["job_id"] is None


def test_the_text_format_is_for_people():
    out, _ = output_of(
        """
        install("text")
        log.info("idle -> job_running")
        try:
            raise ValueError("no\\x1b[2J")
        except ValueError:
            log.error("bad \\x1b[31m name\\nfake line", exc_info=True)
        """
    )
    first, second, *trace = out.splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} INFO  arbiter  idle -> job_running", first
    )
    assert second.endswith("ERROR arbiter  bad \\x1b[31m name\\nfake line")
    assert all(line.startswith("  ") for line in trace)
    assert trace[-1] == "  ValueError: no\\x1b[2J"


def test_the_level_changes_at_run_time():
    lines = lines_of(
        """
        install(level="warning")
        log.info("unheard")
        logger.set_level("DEBUG")
        log.debug("heard debug")
        """
    )
    assert [line["message"] for line in lines] == ["heard debug"]


def test_an_unknown_level_is_refused():
    with pytest.raises(logger.UnknownLevel, match="no log level 'loud'"):
        logger.set_level("loud")


@pytest.mark.parametrize("format", ["json", "text"])
def test_no_secret_in_any_form_reaches_an_output(format):
    out, err = output_of(
        f"""
        import base64
        from urllib.parse import quote
        redaction.remember_secret("{SECRET}")
        install("{format}")
        forms = ["{SECRET}", base64.b64encode(b"x{SECRET}").decode()]
        class Thing:
            def __repr__(self):
                return "{SECRET}"
        log.info("%s and %s", *forms, extra={{"thing": Thing(), "more": forms}})
        log.info("Authorization: Bearer abc.def", extra={{"api_token": "abc.def"}})
        try:
            raise ValueError(forms, Thing())
        except ValueError:
            log.exception("it was %r", Thing())
        warnings.warn("warned of {SECRET}")
        print("printed {SECRET}", file=sys.stderr)
        sys.stderr.write("in pieces: Bearer ")
        sys.stderr.write("abc.def\\n")
        raise OSError(forms, "https://me:abc.def@host")
        """,
        status=1,
    )
    everything = (out + err).replace(f'"{SECRET}"', "")
    for hidden in (SECRET, "BlbnNlc2FtZS00M", "abc.def"):
        assert hidden not in everything
    assert "printed ***" in err and "in pieces: Bearer ***" in err and "OSError" in err


def test_redaction_can_be_switched_off():
    [line] = lines_of(
        f"""
        redaction.remember_secret("{SECRET}")
        install(redact_secrets=False)
        log.info("%s", "{SECRET}", extra={{"thing": object}})
        """
    )
    assert line["message"] == SECRET


def test_a_long_line_is_cut_and_says_so():
    lines = lines_of(
        """
        install()
        log.info("begin " + "x" * 100000 + " end")
        more = {"note": "\\U0001f600" * 9000, "tree": {"a": ["b" * 9000]}}
        log.info("short", extra=more)
        log.info("\\0" * 5000, extra={f"field_{n}": "y" * 50 for n in range(300)})
        try:
            raise ValueError("z" * 100000 + " end")
        except ValueError:
            log.exception("it failed")
        """
    )
    assert lines[0]["message"].startswith("begin ")
    assert lines[0]["message"].endswith(" end")
    assert "characters cut]" in lines[0]["message"]
    assert lines[1]["message"] == "short"
    assert lines[2]["vm_id"] == "vm-1"
    assert lines[3]["message"] == "it failed"
    assert lines[3]["exc_info"].endswith(" end")


@pytest.mark.parametrize("format", ["json", "text"])
def test_no_line_is_longer_than_what_a_pipe_takes_whole(format):
    out, _ = output_of(
        f"""
        install("{format}")
        for size in range(3000, 5000, 37):
            log.info("m" * size)
            log.info("\\N{{EURO SIGN}}" * size)
        """
    )
    lengths = [len(line.encode()) + 1 for line in out.splitlines()]
    # What the reader is too slow for is dropped; the first sixteen always fit.
    assert len(lengths) >= 16 and max(lengths) <= 4096


def test_a_log_call_with_wrong_arguments_is_no_reason_to_die():
    lines = lines_of(
        """
        install()
        log.info("%d", "text")
        log.info("%s %s", "one")
        log.info("after")
        """
    )
    assert ["cannot be formatted" in line["message"] for line in lines] == [1, 1, 0]


def test_lines_of_several_processes_do_not_mix():
    lines = lines_of(
        """
        install()
        children = []
        for number in range(4):
            if not (pid := os.fork()):
                logger.set_component(f"worker-{number}")
                for count in range(200):
                    log.info("%d:%s", count, "x" * (37 * count % 3600))
                os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        """
    )
    # The reader keeps up, or lines were dropped and counted; none is ever torn.
    dropped = sum(line.get("lines_dropped", 0) for line in lines)
    assert len(lines) + dropped <= 800
    assert len({line["component"] for line in lines}) == 4
    for line in lines:
        count, _, filling = line["message"].partition(":")
        assert filling == "x" * (37 * int(count) % 3600)


def test_a_full_pipe_costs_lines_and_not_time():
    script = """
    install()
    for count in range(500):
        log.info("line %d %s", count, "x" * 500)
    os.write(2, b"done\\n")
    sys.stdin.readline()
    log.info("the last one")
    """
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with running(script, **pipes) as process:
        # Nobody reads stdout, and yet it gets through:
        assert select.select([process.stderr], [], [], 20)[0], "it blocked"
        assert process.stderr.readline() == b"done\n"
        early = os.read(process.stdout.fileno(), 1 << 20)
        process.stdin.write(b"\n")
        process.stdin.flush()
        late = process.stdout.read()
        assert process.wait(20) == 0
    lines = [json.loads(line) for line in (early + late).splitlines()]
    assert lines[-1]["message"] == "the last one"
    assert len(lines) - 1 + lines[-1]["lines_dropped"] == 500


def test_a_full_stderr_does_not_block_either():
    script = """
    install()
    for count in range(500):
        print("x" * 500, file=sys.stderr)
    log.info("done")
    """
    with running(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert select.select([process.stdout], [], [], 20)[0], "it blocked"
        assert json.loads(process.stdout.readline())["message"] == "done"
        process.communicate(timeout=20)


def test_a_full_socket_does_not_block_either():
    """Under systemd stdout is a stream socket of the journal's (systemd.exec(5))."""
    ours, theirs = socket.socketpair()
    script = """
    install()
    for count in range(1000):
        log.info("line %d %s", count, "x" * 500)
    os.write(2, b"done\\n")
    """
    with (
        ours,
        theirs,
        running(script, stdout=theirs, stderr=subprocess.PIPE) as process,
    ):
        assert select.select([process.stderr], [], [], 20)[0], "it blocked"
        assert process.stderr.readline() == b"done\n"


def test_our_pipe_does_not_block_and_our_neighbours_still_does():
    reading, writing = os.pipe()
    with running(
        "install(); os.write(2, b'x'); sys.stdin.read()",
        stdin=subprocess.PIPE,
        stdout=writing,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr.read(1) == b"x"
        assert os.get_blocking(writing)
        with open(f"/proc/{process.pid}/fdinfo/1") as file:
            flags = file.read()
        assert int(re.search(r"flags:\s+0(\d+)", flags)[1], 8) & os.O_NONBLOCK
        process.stdin.close()
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("closing", ["os.close(1)", "os.close(1); os.close(2)"])
def test_closed_outputs_are_no_reason_to_die(closing):
    output_of(
        f"{closing}; install(); log.info('x'); warnings.warn('y'); os._exit(7)", 7
    )


def test_a_reader_that_went_away_is_no_reason_to_die():
    script = """
    install()
    sys.stdin.readline()
    for count in range(100):
        log.info("x"); print("y", file=sys.stderr)
    os._exit(7)
    """
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = running(script, **pipes)
    process.stdout.close()
    process.stderr.close()
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.wait(20) == 7


def test_a_fork_duplicates_nothing_and_finds_no_lock_held():
    out, err = output_of(
        """
        install()
        halt = threading.Event()
        def chatter():
            while not halt.is_set():
                log.debug("never shown")
                log.info("busy")
        warnings.simplefilter("ignore")
        sys.stderr.write("half a line")
        threads = [threading.Thread(target=chatter) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(30):
            if not (pid := os.fork()):
                signal.alarm(10)
                log.info("child")
                sys.stderr.flush()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        halt.set()
        for thread in threads:
            thread.join()
        """
    )
    assert err == "half a line"
    assert all(json.loads(line) for line in out.splitlines())


@pytest.mark.parametrize(
    "leaving, status",
    [
        ("raise ValueError('it was me')", 1),
        ("sys.exit(5)", 5),
        ("sys.exit()", 0),
        ("raise SystemExit('it was me')", 1),
        ("raise KeyboardInterrupt('it was me')", 1),
        ("pass", 3),
    ],
)
def test_last_words_are_logged_and_the_process_ends(leaving, status):
    lines = lines_of(
        f"""
        install()
        try:
            with logger.last_words():
                {leaving}
            os._exit(3)
        finally:
            print("the parent's code was reached")
            sys.stdout.flush()
        """,
        status,
    )
    assert [line["level"] for line in lines] == ["critical"] * ("me" in leaving)
    assert all("it was me" in line["exc_info"] for line in lines)


def test_a_line_without_end_on_stderr_does_not_fill_the_memory():
    _, err = output_of(
        """
        install()
        for _ in range(100):
            sys.stderr.write("x" * 1000)
        assert len(sys.stderr._pending) < 100000 - 65536
        assert sys.stderr.fileno() == 2 and not sys.stderr.isatty()
        assert sys.stderr.writable()
        """
    )
    assert set(err) == {"x"} and 60000 < len(err) <= 100000


def test_waiting_is_possible_while_lines_are_read_slowly(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with open(fifo, "wb") as writing:
        process = running(
            "install(); [log.info('x' * 900) for _ in range(500)]", stdout=writing
        )
    watch = Stopwatch()
    eventually(lambda: process.poll() is not None, 20, "the writer waits")
    assert process.returncode == 0 and watch.seconds() < 20
    os.close(reading)
