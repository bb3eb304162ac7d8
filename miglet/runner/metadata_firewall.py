"""Keeps the runner's user from the clouds' metadata servers, by a table of nftables.

The table is ours alone: loading replaces it as a whole and in one step, and no other
table is looked at. What cannot be blocked for certain is a MetadataOpen, and then no
runner may be launched.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from miglet.config.settings import Settings
from miglet.errors import MISCONFIGURED, UNAVAILABLE, RunnerError
from miglet.runner.records import tail
from miglet.supervisor import systemd
from miglet.supervisor.privileges import Account, unprivileged_uids
from miglet.supervisor.systemd import systemd_usable

#: Where subordinate user ids are given to users: subuid(5).
SUBUID = Path("/etc/subuid")

#: Exists below paths.runtime while the table may, and is lost with it at a reboot.
MARKER = "metadata-blocked"

#: Seconds that loading may take; it takes about 15 ms, through systemd too.
LOAD_SECONDS = 10.0

#: Bytes of what nft complained of that are passed on.
LONGEST_ERROR = 2000

#: The bit of CAP_NET_ADMIN: linux/capability.h.
NET_ADMIN = 1 << 12

#: The folders of administration, which are not in everybody's PATH.
ADMINISTRATION = "/usr/sbin:/sbin"

INSTALL = (
    "apt-get install nftables, or set runner.block_metadata to false, which lets every"
    " job read what metadata holds"
)
ANOTHER_USER = (
    "set runner.user to a user of its own, or runner.block_metadata to false, which"
    " lets every job read what metadata holds"
)
RIGHTS = "start MIGlet as root, or set runner.block_metadata to false"
KERNEL = "does this kernel have nf_tables? See nft(8)"

#: Adding first makes deleting succeed where there was no table.
REMOVAL = "add table inet miglet\ndelete table inet miglet\n"

#: A connection is reset: the kernel takes an ICMP message that comes while connect(2)
#: holds the socket for a transient error, and tries again after a second.
TABLE = """\
table inet miglet {{
	chain output {{
		type filter hook output priority 0; policy accept;
		{jumps}
	}}
	chain metadata {{
		meta l4proto {{ tcp, udp }} th dport 53 return
		udp dport 123 return
		ip daddr {{ {ipv4} }} goto refusal
		ip6 daddr {{ {ipv6} }} goto refusal
	}}
	chain refusal {{
		counter
		meta l4proto tcp reject with tcp reset
		reject with icmpx type admin-prohibited
	}}
}}
"""


class MetadataOpen(RunnerError):
    """The runner's user is not kept from the metadata servers, though it is to be."""

    category = "infrastructure"
    exit_status = UNAVAILABLE

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


class Unblockable(MetadataOpen):
    """This machine, or this configuration, leaves no way of blocking."""

    category = "misconfig"
    exit_status = MISCONFIGURED


def apply(settings: Settings, account: Account, addresses: Sequence[str]) -> None:
    """Block `addresses`, or take away what an earlier start blocked.

    Raises MetadataOpen.

    Takes LOAD_SECONDS at most, and nothing where nothing is nor was to be blocked.
    """
    runtime = Path(settings.paths.runtime)
    marker = runtime / MARKER
    try:
        if settings.runner.block_metadata is True:
            marker.touch(mode=0o600)
            load(ruleset(owners(account), addresses), runtime)
        elif marker.exists():
            load(REMOVAL, runtime)
            marker.unlink()
    except OSError as error:
        raise MetadataOpen(str(error), "see paths.runtime") from error


def dry_run(settings: Settings, account: Account, addresses: Sequence[str]) -> None:
    """Have the kernel judge what `apply` would load, and change nothing.

    Raises MetadataOpen.
    """
    runtime = Path(settings.paths.runtime)
    load(ruleset(owners(account), addresses), runtime, ("--check",))


def ruleset(uids: Sequence[str], addresses: Sequence[str]) -> str:
    """What makes nft(8) put our table in place, whatever was in it before.

    Each of `uids` is a user id or a range of them. Names (DNS) and time (NTP) stay:
    at Google and Azure the same addresses serve them.
    """
    jumps = (f"meta skuid {each} jump metadata" for each in uids)
    table = TABLE.format(
        jumps="\n\t\t".join(jumps),
        ipv4=", ".join(each for each in addresses if ":" not in each),
        ipv6=", ".join(each for each in addresses if ":" in each),
    )
    return REMOVAL + table


def owners(account: Account, subuid: Path = SUBUID) -> tuple[str, ...]:
    """The user ids under which processes of `account` may send without being root.

    Raises Unblockable for an account that MIGlet needs itself.
    """
    if account.uid == 0:
        raise Unblockable("nothing keeps root from the metadata server", ANOTHER_USER)
    if account.uid in (os.geteuid(), *unprivileged_uids()):
        reason = f"jobs run as {account.name}, and so does what asks for metadata"
        raise Unblockable(reason, ANOTHER_USER)
    return (str(account.uid), *subordinate(account, subuid))


def subordinate(account: Account, subuid: Path) -> Iterator[str]:
    """The ranges that newuidmap(1) would let `account` become, as nft writes them."""
    try:
        text = subuid.read_text(errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        found = re.fullmatch(r"([^:#]+):(\d{1,10}):(\d{1,10})", line.strip())
        if found and found[1] in (account.name, str(account.uid)) and int(found[3]):
            first = int(found[2])
            yield f"{first}-{first + int(found[3]) - 1}"


def load(rules: str, runtime: Path, options: Sequence[str] = ()) -> None:
    """Give `rules` to nft(8), all or nothing; raises MetadataOpen."""
    command = (nft(), *options, "-f", "-")
    errors = runtime / f"nft-{os.getpid()}.err"
    try:
        if may_filter():
            systemd.order(command, LOAD_SECONDS, rules.encode())
        else:
            systemd.order(in_unit(command, rules, errors), LOAD_SECONDS)
    except systemd.CommandFailed as error:
        said = tail(errors, LONGEST_ERROR).decode(errors="replace").strip()
        reason = (said or str(error))[:LONGEST_ERROR]
        raise MetadataOpen(f"nft refuses the rules: {reason}", KERNEL) from error
    finally:
        errors.unlink(missing_ok=True)


def nft() -> str:
    """The program's path; raises Unblockable where it is not installed."""
    places = f"{os.environ.get('PATH', os.defpath)}:{ADMINISTRATION}"
    found = shutil.which("nft", path=places)
    if found is None:
        raise Unblockable("nft is not installed", INSTALL)
    return found


def may_filter(status: Path = Path("/proc/self/status")) -> bool:
    """Whether we may change packet filters ourselves; MIGlet's own unit may not."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
    return bool(found and int(found[1], 16) & NET_ADMIN)


def in_unit(command: Sequence[str], rules: str, errors: Path) -> tuple[str, ...]:
    """The same command outside our sandbox; raises Unblockable if that cannot be.

    Starting a oneshot waits for its end without a message bus, which --wait needs.
    """
    if not systemd_usable():
        raise Unblockable("MIGlet may not change packet filters", RIGHTS)
    properties = (
        "Type=oneshot",
        f"TimeoutStartSec={LOAD_SECONDS:g}",
        "StandardInput=data",
        f"StandardInputData={base64.b64encode(rules.encode()).decode()}",
        f"StandardError=truncate:{errors}",
    )
    return (
        *("systemd-run", "--quiet", "--collect"),
        "--description=MIGlet: who may ask the metadata server",
        *(f"--property={each}" for each in properties),
        *("--", *command),
    )
