"""The pre-generated registration token that ``github.metadata_path`` names.

It lies in the metadata as GitHub gave it out: the token alone, or GitHub's JSON with
its time of expiry. The one rule: one call is one look; what follows from a token
that is gone or too old is the caller's to decide.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from miglet.config.settings import Settings
from miglet.controller.answers import Fields, RegistrationToken
from miglet.errors import BadAnswer, MigletError
from miglet.formats import is_printable_word
from miglet.metadata.attempts import Limits
from miglet.metadata.clouds import cloud_name, open_cloud
from miglet.redaction import remember_secret

#: Seconds that one look may take.
LOOK_SECONDS = 5.0

#: A registration token is far shorter.
LONGEST_TOKEN = 4096

#: What the token is called in GitHub's answer, and in a controller's.
NAMES = ("token", "registration_token")

GITHUB = "https://github.com/"


class TokenUnusable(MigletError):
    """The metadata has no registration token that can be used; the controller may."""

    category = "infrastructure"
    hint = (
        "put the token, or GitHub's JSON with token and expires_at, where"
        " github.metadata_path says, or set github.token_source to controller"
    )


class TokenExpired(TokenUnusable):
    """The token was of no use any more when it was read."""


def registration_token(
    settings: Settings, environ: Mapping[str, str], seconds: float = LOOK_SECONDS
) -> RegistrationToken:
    """The token as the metadata has it now, for `settings.github`.

    Takes at most `seconds`. Raises TokenUnusable, or MetadataUnavailable, which may
    pass.
    """
    name = cloud_name(environ)
    if name is None:
        raise TokenUnusable("this machine is in no cloud, so there is no metadata")
    path = settings.github.metadata_path or ""
    limits = Limits(attempt_seconds=seconds, tries=1, overall_seconds=seconds)
    cloud = open_cloud(name, environ, limits)
    try:
        text = cloud.text(path, limits.deadline())
    finally:
        cloud.close()
    if text is None:
        raise TokenUnusable(f"{path}: there is no such metadata on {name}")
    return usable(text.strip(), path, settings)


def usable(text: str, path: str, settings: Settings) -> RegistrationToken:
    """The token in `text`; raises TokenUnusable, without a word of it."""
    try:
        token = from_json(text, path) if text.startswith("{") else (text, None)
    except BadAnswer as error:
        raise TokenUnusable(str(error)) from None
    word, expires_at = token
    if not is_printable_word(word) or len(word) > LONGEST_TOKEN:
        found = "something else" if word else "nothing"
        reason = "expected a registration token, one printable word"
        raise TokenUnusable(f"{path}: {reason}; found {found}")
    remember_secret(word)
    if expires_at is not None and expires_at <= time.time():
        ago = time.time() - expires_at
        raise TokenExpired(f"{path}: the token expired {ago:.0f} s ago")
    github = settings.github
    url = GITHUB + str(github.org)
    return RegistrationToken(
        word, expires_at, url, github.runner_group, tuple(github.labels)
    )


def from_json(text: str, path: str) -> tuple[str, float | None]:
    """Token and wall time of expiry, if it has one; raises BadAnswer."""
    fields = Fields(text.encode(), f"metadata {path}")
    name = next((each for each in NAMES if each in fields.values), NAMES[0])
    timed = "expires_at" in fields.values
    return fields.word(name), fields.instant_or_null("expires_at") if timed else None
