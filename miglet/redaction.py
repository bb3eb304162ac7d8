"""Masks secrets in texts and in JSON values.

A secret is masked in every form in which it may appear (quoted, URL-encoded, base64),
at the price of masking now and then what is none.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

#: What stands where a secret stood.
MASK = "***"

#: Shorter texts are not remembered: masking them would mask half of every line.
SHORTEST_SECRET = 6

#: The latest so many secrets are masked: each costs a search of every line.
MOST_SECRETS = 128


SENSITIVE_KEY = re.compile(r"(?i)(?:token|secret|password|passwd|private_key)$")

#: Every pattern is linear in the text: what may repeat without limit is one class
#: of characters, and no two starting points share a run of it. Patterns that keep
#: their beginning (the group) come last, so that a second pass finds nothing new.
PATTERNS = (
    re.compile(  # with or without its end: a cut traceback must not show half a key
        r"()-----BEGIN [A-Z0-9 ]{1,64}-----[^-\"]*(?:-(?!----)[^-\"]*){0,16}(?<!\\)"
        r"(?:-----END [A-Z0-9 ]{1,64}-----)?"
    ),
    re.compile(r"()gh[pousr]_[\w.-]{8,}|github_pat_\w{8,}"),
    re.compile(r"()eyJ[\w+/=-]{12,}[\w.+/=-]*"),  # JWTs, and the runner's JIT config
    re.compile(r"(://[^\s/:@\"'\\]*:)[^\s/\"'\\]+(?=@)"),
    re.compile(
        r"(?i)((?:token|secret|password|passwd|private_key|jitconfig)"
        r"\\*\"?\s{0,4}[:=]\s{0,4}\\*\")(?!\\*\")[^\"\\]*(?:\\+[^\"\\]+){0,1000}"
    ),
    re.compile(
        r"(?i)((?:token|secret|password|passwd|private_key|jitconfig)"
        r"\\*'?\s{0,4}[:=]\s{0,4}\\*')(?!\\*')[^'\"\\]*(?:\\+[^'\"\\]+){0,1000}"
    ),
    re.compile(r"(?i)((?:token|secret|password|private_key)=)[^\s\"'\\&;,]+"),
    re.compile(
        r"(?i)(--(?:token|pat|jitconfig|password|secret)\\*[\"']?[\s,=]{1,4}"
        r"\\*[\"']?)[^\s\"'\\,]+"
    ),
    re.compile(r"(?i)(authorization\\*[\"']?\s{0,4}[:=]\s{0,4}\\*[\"']?)[^\r\n\"'\\]+"),
    re.compile(
        r"(?i)(bearer\s{1,4})(?!(?:tokens?|authentication)(?![\w.~+/=-]))[\w.~+/=-]+"
    ),
)


class SecretStore:
    """The secrets that this process knows, each in the forms it may turn up in."""

    def __init__(self) -> None:
        self._secrets: dict[str, frozenset[str]] = {}
        #: All forms, the longest first: a secret may contain another one.
        self.forms: tuple[str, ...] = ()

    def remember(self, secret: str) -> None:
        """Mask `secret` from now on."""
        self._secrets.pop(secret, None)
        self._secrets[secret] = frozenset(forms_of(secret))
        while len(self._secrets) > MOST_SECRETS:
            del self._secrets[next(iter(self._secrets))]
        self._sort()

    def forget(self) -> None:
        """Mask nothing any more."""
        self._secrets.clear()
        self._sort()

    def _sort(self) -> None:
        every: set[str] = set().union(*self._secrets.values())
        self.forms = tuple(sorted(every, key=lambda form: (-len(form), form)))


def forms_of(secret: str) -> Iterator[str]:
    """`secret` itself, and as JSON, a URL or base64 would carry it."""
    yield secret
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    raw = secret.encode(errors="replace")
    for encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield encoded
        yield re.sub(r"%..", lambda octet: octet.group().lower(), encoded)
    for offset in range(3):
        form = _base64_at(raw, offset)
        yield form
        yield form.replace("+", "-").replace("/", "_")


def _base64_at(raw: bytes, offset: int) -> str:
    """Those characters of base64 that `raw` alone decides when it starts at `offset`.

    `offset` counts bytes modulo 3; the characters at either end depend on the
    neighbours and are left out.
    """
    text = base64.b64encode(bytes(offset) + raw).decode()
    return text[math.ceil(offset * 8 / 6) : (offset + len(raw)) * 8 // 6]


SECRETS = SecretStore()


def remember_secret(text: str) -> None:
    """Have `redact` mask `text` in this process and in those forked from it later.

    Texts shorter than SHORTEST_SECRET are ignored, and so are masks.
    """
    text = text.strip()
    if len(text) >= SHORTEST_SECRET and text.strip("*"):
        SECRETS.remember(text)


def forget_secrets() -> None:
    """Forget all remembered secrets; for tests."""
    SECRETS.forget()


def redact(text: str) -> str:
    """`text` with MASK wherever a known secret, or what looks like one, stood.

    Takes time linear in the text; what was redacted once does not change again.
    """
    for form in SECRETS.forms:
        text = text.replace(form, MASK)
    for pattern in PATTERNS:
        text = pattern.sub(rf"\1{MASK}", text)
    return text


def redact_tree(value: Any) -> Any:
    """A JSON value with every text in it redacted.

    The text under a key that names a secret is masked whole. What JSON does not
    know becomes its redacted `str`.
    """
    if isinstance(value, dict):
        return {redact(str(key)): _field(key, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_tree(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return redact(str(value))


def _field(key: object, value: Any) -> Any:
    if isinstance(value, str) and value and SENSITIVE_KEY.search(str(key)):
        return MASK
    return redact_tree(value)
