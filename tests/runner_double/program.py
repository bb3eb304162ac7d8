"""`bin/Runner.Listener`: finds out what is asked, and plays it.

`.env` is read first and at every start, whatever the command.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import signal
from collections.abc import Callable

from tests.runner_double import options as option_parser
from tests.runner_double.configure import configure
from tests.runner_double.host import Exit, Host, root_of
from tests.runner_double.listener import Listener
from tests.runner_double.options import Options
from tests.runner_double.registry import fingerprint
from tests.runner_double.remove import remove

COMMIT = "258d6c8570000000000000000000000000000000"
NOT_CONFIGURED = (
    "An error occurred: Not configured. Run config.(sh/cmd) to configure the runner."
)


def warn_of_unknown(host: Host, options: Options) -> None:
    if options.unknown:
        host.terminal.error(
            "Unrecognized command-line input arguments for command"
            f" {options.command or 'run'}: '{', '.join(options.unknown)}'. For usage"
            " refer to: .\\config.cmd --help or ./config.sh --help"
        )


def answer_query(host: Host, options: Options) -> int | None:
    """`--version` and its like; None if none of them was asked for."""
    answers = {
        "help": "Commands:\n ./config.sh\n ./run.sh",
        "version": host.version,
        "commit": COMMIT,
        "check": "Check: PASS",
    }
    for name, answer in answers.items():
        if options.flag(name):
            host.terminal.line(answer)
            return 0
    return None


def write_jit_files(host: Host, encoded: str) -> None:
    """The three files out of `--jitconfig`, as they are and with the umask's mode."""
    try:
        files = json.loads(base64.b64decode(encoded, validate=True))
        for name, content in files.items():
            (host.root / name).write_bytes(base64.b64decode(content))
    except (binascii.Error, ValueError) as problem:
        host.terminal.error(str(problem))
        raise Exit(1) from problem


def interrupted(host: Host) -> None:
    """SIGINT while configuring."""
    host.record("signal", process="config", signal="INT")
    host.terminal.line("Exiting...")
    raise Exit(1)


def play_config(
    host: Host, options: Options, action: Callable[[Host, Options], int]
) -> int:
    host.loop.on_signals({signal.SIGINT: lambda: interrupted(host)})
    return action(host, options)


def play_run(host: Host, options: Options) -> int:
    encoded = options.value("jitconfig")
    if encoded:
        write_jit_files(host, encoded)
    if not host.settings():
        host.terminal.error(NOT_CONFIGURED)
        return 1
    return Listener(host, options).run()


def play(host: Host, options: Options) -> int:
    """The exit code of what is asked."""
    warn_of_unknown(host, options)
    status = answer_query(host, options)
    if status is not None:
        return status
    if options.command == "configure":
        return play_config(host, options, configure)
    if options.command == "remove":
        return play_config(host, options, remove)
    return 0 if options.command == "warmup" else play_run(host, options)


def ended(host: Host, code: int) -> str:
    """The last line of the log."""
    if host.cancelled:
        return "Runner execution been cancelled."
    return f"Runner execution has finished with return code {code}"


def main(script: str, arguments: list[str]) -> int:
    """Play the Listener; its exit code."""
    root = root_of(script)
    option_parser.load_env_file(root)
    options = option_parser.parse(arguments)
    options.inputs = option_parser.take_inputs()
    host = Host(root, "Runner")
    host.trace.write("Listener", f"Version: {host.version}")
    host.trace.write("Listener", f"Commit: {COMMIT}")
    host.count("RunnerProcessStarted")
    asks = {"configure": "config", "remove": "remove"}.get(options.command, "listener")
    host.record(
        f"{asks}_start",
        argv=option_parser.masked(arguments, options),
        cwd=os.getcwd(),
        environment=sorted(os.environ),
        token_from=options.source("token"),
        token_sha256=fingerprint(options.value("token")),
    )
    try:
        code = play(host, options)
    except Exit as exit:
        code = exit.code
    host.trace.write("Listener", ended(host, code))
    host.record(f"{asks}_exit", code=code)
    return code
