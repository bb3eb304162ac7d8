"""What no JSON Schema can say: settings that must agree with one another.

One decorated function a rule; the first key it names gets the blame. A rule is
asked only when all its keys are valid by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from miglet.config.schema import duration_text
from miglet.errors import Fault

LOOPBACK = re.compile(r"localhost|.*\.localhost|127(\.[0-9]{1,3}){3}|::1")

#: Takes the values of the keys; gives the reason why they do not go together, or "".
Check = Callable[..., str]


class Rule(NamedTuple):
    """A check and the keys whose values it takes."""

    keys: tuple[str, ...]
    check: Check


RULES: list[Rule] = []


def rule(*keys: str) -> Callable[[Check], Check]:
    """Registers a check of `keys`."""

    def register(check: Check) -> Check:
        RULES.append(Rule(keys, check))
        return check

    return register


def rule_faults(
    flat: Mapping[str, Any], sources: Mapping[str, str], doubtful: Set[str]
) -> Iterator[Fault]:
    """The rules that `flat` breaks; rules on a key in `doubtful` are left out."""
    for keys, check in RULES:
        usable = all(key in flat and key not in doubtful for key in keys)
        reason = check(*(flat[key] for key in keys)) if usable else ""
        if reason:
            yield Fault(keys[0], blamed_source(keys, sources), reason)


def blamed_source(keys: tuple[str, ...], sources: Mapping[str, str]) -> str:
    """The source of the first of `keys` that somebody set."""
    given = [sources[key] for key in keys if sources[key] != "default"]
    return given[0] if given else "default"


def url_fault(url: str) -> str:
    """Why `url` is no base address of a server, or nothing."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        return "expected a URL with a valid host and port"
    if any(character.isspace() for character in url):
        return "expected a URL without spaces"
    return "has a query or a fragment" if parts.query or parts.fragment else ""


@rule("controller.endpoint")
def endpoint_is_a_base_url(endpoint: str) -> str:
    """Credentials do not belong in it: it goes into logs and events."""
    if urlsplit_has_user(endpoint):
        return "must not contain a user or password; use controller.auth"
    return url_fault(endpoint)


def urlsplit_has_user(url: str) -> bool:
    """Whether something stands before an @ in the authority of `url`."""
    return "@" in url.partition("//")[2].partition("/")[0]


@rule("controller.proxy")
def proxy_is_a_url(proxy: str | None) -> str:
    """A proxy may be given with user and password."""
    return url_fault(proxy) if proxy else ""


@rule("runner.proxy")
def runner_proxy_is_a_url(proxy: str | None) -> str:
    """Every job can read it: it has no credentials, which the pattern sees to."""
    return url_fault(proxy) if proxy else ""


@rule("controller.endpoint", "controller.allow_insecure")
def plain_http_stays_on_the_machine(endpoint: str, allow_insecure: bool) -> str:
    """A bearer token on a network needs TLS."""
    if allow_insecure or url_fault(endpoint):
        return ""
    parts = urlsplit(endpoint)
    if parts.scheme == "https" or LOOPBACK.fullmatch(parts.hostname or ""):
        return ""
    return "plain http is for loopback only; use https or set controller.allow_insecure"


@rule("controller.auth.token_path", "controller.auth.type")
def bearer_has_a_token(token_path: str | None, kind: str) -> str:
    """The token itself is never a setting."""
    needed = kind == "bearer" and not token_path
    return "is required when controller.auth.type is bearer" if needed else ""


@rule("controller.auth.certificate_path", "controller.auth.type")
def mtls_has_a_certificate(path: str | None, kind: str) -> str:
    """What the controller knows the machine by."""
    needed = kind == "mtls" and not path
    return "is required when controller.auth.type is mtls" if needed else ""


@rule("controller.auth.key_path", "controller.auth.type")
def mtls_has_a_key(path: str | None, kind: str) -> str:
    """Without its key a certificate proves nothing."""
    return mtls_has_a_certificate(path, kind)


@rule("controller.retry.max_backoff", "controller.retry.initial_backoff")
def backoff_grows(longest: float, first: float) -> str:
    """The first pause is the shortest."""
    return not_shorter(longest, first, "controller.retry.initial_backoff")


@rule("heartbeat.timeout", "heartbeat.interval")
def timeout_covers_a_heartbeat(timeout: float, interval: float) -> str:
    """Else the controller would be called unreachable between two heartbeats."""
    return not_shorter(timeout, interval, "heartbeat.interval")


def not_shorter(value: float, least: float, name: str) -> str:
    """Why `value` is too short beside the setting `name`, or nothing."""
    if value >= least:
        return ""
    was = f"{duration_text(value)} < {duration_text(least)}"
    return f"must not be shorter than {name} ({was})"


@rule("github.metadata_path", "github.token_source")
def metadata_token_has_a_path(path: str | None, source: str) -> str:
    """The token's place differs from image to image: there is no default."""
    needed = source == "metadata" and not path
    return "is required when github.token_source is metadata" if needed else ""


@rule("github.org", "github.token_source")
def metadata_token_has_an_organisation(org: str | None, source: str) -> str:
    """The runner URL comes with the controller's token, but not with this one."""
    needed = source == "metadata" and not org
    return "is required when github.token_source is metadata" if needed else ""


@rule("metrics.listen")
def listen_port_exists(listen: str | None) -> str:
    """Ports end at 65535; 0 lets the kernel choose one."""
    port = int(listen.rpartition(":")[2]) if listen else 0
    return f"port {port} is larger than 65535" if port > 65535 else ""


@rule("paths.runtime", "paths.state")
def folders_differ(runtime: str, state: str) -> str:
    """The runtime folder is emptied at boot, the state folder must not be."""
    return "must not be the same folder as paths.state" if runtime == state else ""
