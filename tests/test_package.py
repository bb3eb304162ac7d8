"""The Debian packages: what they say of themselves, what is in them, how they install.

Nothing of this machine is changed but what ``make deb`` says it installs: packages are
built in a copy of the checkout, and installed in a throw-away copy of the machine.
"""

from __future__ import annotations

import argparse
import configparser
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest

from miglet import __version__, arguments, errors
from miglet.config.schema import KEYS
from miglet.ctl import __main__ as ctl
from miglet.reference import cli as controller
from tests.paths import ROOT

DEBIAN = ROOT / "debian"
MANUALS = ROOT / "docs" / "man"

#: Distributions of PyPI by Debian's names for them, where these differ.
DEBIAN_NAMES = {
    "pyyaml": "python3-yaml",
    "python-json-logger": "python3-pythonjsonlogger",
    "prometheus_client": "python3-prometheus-client",
}


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Every long option of a command line and its subcommands; and every short one
    that has no long one."""
    found: set[str] = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(*(options_of(each) for each in action.choices.values()))
        elif action.option_strings:
            found.add(max(action.option_strings, key=len))
    return found - {"--help"}


def manual(name: str) -> str:
    return (MANUALS / f"{name}.rst").read_text()


@pytest.mark.parametrize(
    ("page", "parser", "verbs"),
    [
        ("miglet.8", arguments.parser(), set(arguments.SUBCOMMANDS)),
        ("miglet-ctl.1", ctl.parser(), set(ctl.SUBCOMMANDS)),
        (
            "miglet-controller.1",
            controller.parser(),
            {"serve", "vms", "events", "command"},
        ),
    ],
    ids=["miglet", "miglet-ctl", "miglet-controller"],
)
def test_a_manual_page_names_every_verb_and_every_option(page, parser, verbs):
    text = manual(page)
    wanted = verbs | options_of(parser)
    if page.startswith("miglet-controller"):
        wanted -= {"--version"}
    assert {word for word in wanted if f"**{word}**" not in text} == set()


def test_the_manual_page_and_the_page_by_symptom_name_every_exit_status():
    statuses = {
        getattr(errors, name)
        for name in dir(errors)
        if name.isupper() and isinstance(getattr(errors, name), int)
    }
    section = manual("miglet.8").split("EXIT STATUS\n", 1)[1].split("ENVIRONMENT")[0]
    symptoms = (ROOT / "docs" / "troubleshooting.rst").read_text()
    assert set(map(int, re.findall(r"^(\d+)$", section, re.MULTILINE))) == statuses
    assert set(map(int, re.findall(r"^(\d+) ", symptoms, re.MULTILINE))) == statuses


def test_the_manual_page_of_the_configuration_has_every_setting():
    made = subprocess.run(
        [sys.executable, MANUALS / "settings.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    for key in KEYS.values():
        assert f"\n``{key.name}`` (" in made
        assert key.rules["description"] in made
    assert "list-table" not in made
    assert "====  ====" not in made


def completions(command: str, *words: str) -> set[str]:
    """What bash offers for the last of `words` after `command`."""
    script = f"""
        _init_completion() {{
            words=("${{COMP_WORDS[@]}}") cword=$COMP_CWORD
            cur=${{words[cword]}} prev=${{words[cword - 1]}}
        }}
        _filedir() {{ COMPREPLY=(a-file); }}
        . "$1"
        shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _{command.replace("-", "_")}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    file = ROOT / "etc" / "completion" / command
    made = subprocess.run(
        ["bash", "-c", script, "bash", file, command, *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stderr == ""
    return set(made.stdout.split())


def verb_options(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
    """The options of each subcommand."""
    subparsers = next(
        each for each in parser._actions if isinstance(each, argparse._SubParsersAction)
    )
    return {name: options_of(each) for name, each in subparsers.choices.items()}


@pytest.mark.parametrize(
    ("command", "parser"),
    [("miglet", arguments.parser()), ("miglet-ctl", ctl.parser())],
    ids=["miglet", "miglet-ctl"],
)
def test_the_shell_offers_every_verb_and_its_options(command, parser):
    verbs = verb_options(parser)
    assert completions(command, "") == set(verbs)
    assert completions(command, "-") >= {"--version", "--help"}
    for verb, options in verbs.items():
        assert completions(command, verb, "-") - {"--help"} == options, verb
        assert completions(command, verb, "") - {
            "debug",
            "info",
            "warning",
            "error",
            "a-file",
        } == (set())


def test_the_shell_offers_a_file_where_one_is_wanted():
    assert completions("miglet", "--config", "") == {"a-file"}
    assert completions("miglet-ctl", "--socket", "") == {"a-file"}
    assert completions("miglet-ctl", "log-level", "w") == {"warning"}


def test_the_changelog_begins_with_this_version():
    first = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert first.startswith(f"miglet ({__version__}) ")


class Package:
    """A binary package, unpacked in memory."""

    def __init__(self, path: Path) -> None:
        self.fields = dict(
            line.split(": ", 1)
            for line in output("dpkg-deb", "--field", path).splitlines()
            if re.match(r"[A-Z][A-Za-z-]*: ", line)
        )
        self.control = _members(_bytes("dpkg-deb", "--ctrl-tarfile", path))
        self.files = _members(_bytes("dpkg-deb", "--fsys-tarfile", path))

    @property
    def dependencies(self) -> set[str]:
        """The names of what it depends on; the first of alternatives."""
        names = self.fields["Depends"].split(", ")
        return {re.split(r"[ :(|]", name, maxsplit=1)[0] for name in names}


def output(*words: str | Path) -> str:
    return _bytes(*words).decode()


def _bytes(*words: str | Path) -> bytes:
    return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout


def _members(archive: bytes) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        return {
            f"/{member.name.removeprefix('./')}": (member, _content(tar, member))
            for member in tar
            if not member.isdir()
        }


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member) if member.isfile() else None
    return stream.read() if stream else b""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder with both packages, as `make deb` makes them."""
    if "PACKAGES_UNDER_TEST" in os.environ:
        return ROOT / os.environ["PACKAGES_UNDER_TEST"]
    if not shutil.which("dpkg-deb"):
        pytest.skip("this is no Debian")
    if os.geteuid() != 0 and not _buildable():
        pytest.skip("what building needs is not installed, and only root may install")
    folder = tmp_path_factory.mktemp("packages")
    subprocess.run([DEBIAN / "make-deb", folder], check=True)
    return folder


def _buildable() -> bool:
    found = shutil.which("dpkg-checkbuilddeps")
    return bool(found) and not subprocess.run([found], cwd=ROOT).returncode


@pytest.fixture(scope="module")
def package(built) -> Callable[[str], Package]:
    """The package of a name."""
    found = {path.name.split("_")[0]: Package(path) for path in built.glob("*.deb")}
    return found.__getitem__


@pytest.mark.package
def test_the_agent_depends_on_debians_own_packages_and_on_nothing_else(package):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = dict(
        each.split(">=") for each in config["options"]["install_requires"].split()
    )
    names = {DEBIAN_NAMES.get(each, f"python3-{each}"): each for each in wanted}
    made = package("miglet")
    assert made.dependencies == {*names, "python3", "systemd"}
    for name, each in names.items():
        assert f"{name} (>= {wanted[each]})" in made.fields["Depends"]


@pytest.mark.package
def test_the_controller_needs_no_agent(package):
    made = package("miglet-controller")
    assert made.dependencies == {"python3-aiohttp", "python3-jsonschema", "python3"}
    assert not [name for name in made.files if "systemd" in name]


def bill_of_materials(control: str) -> dict[str, Any]:
    """What is written for a package with these fields."""
    with NamedTemporaryFile("w") as file:
        file.write(control)
        file.flush()
        return json.loads(
            subprocess.run(
                [sys.executable, DEBIAN / "sbom", file.name],
                env={**os.environ, "SOURCE_DATE_EPOCH": "1768473000"},
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
        )


CONTROL = """\
Package: miglet
Version: 0.1.0
Depends: python3-requests (>= 2.28.1), python3:any, systemd | systemd-sysusers
Recommends: nftables, python3-requests
Description: agent
 for machines
"""


def test_a_bill_of_materials_names_the_package_and_what_it_needs():
    bill = bill_of_materials(CONTROL)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert bill["metadata"]["timestamp"] == "2026-01-15T10:30:00Z"
    itself = bill["metadata"]["component"]
    assert itself["purl"] == "pkg:deb/miglet@0.1.0"
    assert itself["description"] == "agent"
    needed = {each["purl"]: each["scope"] for each in bill["components"]}
    assert needed == {
        "pkg:deb/debian/nftables": "optional",
        "pkg:deb/debian/python3": "required",
        "pkg:deb/debian/python3-requests": "required",
        "pkg:deb/debian/systemd": "required",
    }
    relations = [each["properties"][0]["value"] for each in bill["components"]]
    assert "Depends: python3-requests (>= 2.28.1)" in relations


def test_a_bill_of_materials_is_the_same_for_the_same_package():
    first, again = bill_of_materials(CONTROL), bill_of_materials(CONTROL)
    assert first == again
    assert first["serialNumber"].startswith("urn:uuid:")
    other = bill_of_materials(CONTROL.replace("0.1.0", "0.2.0"))
    assert first["serialNumber"] != other["serialNumber"]


@pytest.mark.package
@pytest.mark.parametrize("name", ["miglet", "miglet-controller"])
def test_each_package_has_its_bill_of_materials(package, name):
    made = package(name)
    member, content = made.files[f"/usr/share/doc/{name}/sbom.cdx.json"]
    assert stat.S_IMODE(member.mode) == 0o644
    assert f"usr/share/doc/{name}/sbom.cdx.json" in (
        made.control["/md5sums"][1].decode()
    )
    bill = json.loads(content)
    itself = bill["metadata"]["component"]
    assert (itself["name"], itself["version"]) == (name, made.fields["Version"])
    required = {e["name"] for e in bill["components"] if e["scope"] == "required"}
    assert required >= made.dependencies
    references = {itself["bom-ref"], *(each["bom-ref"] for each in bill["components"])}
    assert {each["ref"] for each in bill["dependencies"]} == references
    assert set(bill["dependencies"][0]["dependsOn"]) == references - {itself["bom-ref"]}


@pytest.mark.package
def test_the_agents_package_has_everything_that_it_is_to_have(package):
    files = package("miglet").files
    for name in (
        "/etc/miglet/miglet.yaml",
        "/usr/bin/miglet",
        "/usr/bin/miglet-ctl",
        "/usr/lib/miglet/hooks/job-completed.sh",
        "/usr/lib/miglet/hooks/job-started.sh",
        "/usr/lib/miglet/hooks/report.sh",
        "/usr/lib/python3/dist-packages/miglet/runner/keep.py",
        "/usr/lib/sysusers.d/miglet.conf",
        "/usr/lib/tmpfiles.d/miglet.conf",
        "/usr/share/bash-completion/completions/miglet",
        "/usr/share/bash-completion/completions/miglet-ctl",
        "/usr/share/doc/miglet/image.rst",
        "/usr/share/doc/miglet/troubleshooting.rst",
        "/usr/share/man/man1/miglet-ctl.1.gz",
        "/usr/share/man/man5/miglet.yaml.5.gz",
        "/usr/share/man/man8/miglet.8.gz",
    ):
        assert name in files, name
    for unit in ("miglet.service", "run-miglet-job.mount"):
        assert any(name.endswith(f"/systemd/system/{unit}") for name in files), unit
    assert not [name for name in files if "/reference/" in name or "tests" in name]


@pytest.mark.package
def test_every_module_of_the_checkout_is_in_one_of_the_packages(package):
    inside = {
        re.sub(r".*(?=/miglet/[^-])", "", name.partition("dist-packages")[2] or name)
        for each in ("miglet", "miglet-controller")
        for name in package(each).files
    }
    wanted = {
        f"/{path.relative_to(ROOT)}"
        for pattern in ("*.py", "*.json")
        for path in (ROOT / "miglet").rglob(pattern)
    }
    assert wanted - inside == set()


@pytest.mark.package
@pytest.mark.parametrize("name", ["miglet", "miglet-controller"])
def test_nobody_but_root_may_write_what_is_installed(package, name):
    for member, _ in package(name).files.values():
        assert (member.uname, member.gname) == ("root", "root"), member.name
        if not member.issym():
            assert not member.mode & (stat.S_IWGRP | stat.S_IWOTH), member.name


@pytest.mark.package
def test_the_configuration_is_a_conffile_and_names_every_setting(package):
    made = package("miglet")
    assert made.control["/conffiles"][1].split() == [b"/etc/miglet/miglet.yaml"]
    shipped = made.files["/etc/miglet/miglet.yaml"][1]
    assert shipped == (ROOT / "etc" / "miglet.yaml").read_bytes()


@pytest.mark.package
def test_installing_starts_nothing_and_an_upgrade_only_what_ran(package):
    made = package("miglet")
    postinst = made.control["/postinst"][1].decode()
    invoked = re.findall(r"deb-systemd-invoke (.*) >", postinst)
    assert invoked == ["try-restart 'miglet.service'"]
    assert "was-enabled" in postinst
    prerm = made.control["/prerm"][1].decode()
    assert re.findall(r"deb-systemd-invoke (\S+)", prerm) == ["stop"]


@pytest.mark.package
def test_two_builds_are_the_same_and_lintian_objects_to_nothing(built):
    if os.geteuid() != 0 and not shutil.which("lintian"):
        pytest.skip("lintian is not installed, and only root may install it")
    checked = subprocess.run(
        [DEBIAN / "check-deb", built],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout
    assert not re.findall(r"^[EW]: .*", checked.stdout, re.MULTILINE)


@pytest.mark.package
def test_installed_they_work_and_purged_nothing_is_left(built, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can make a throw-away copy of the machine")
    shutil.copytree(DEBIAN / "tests", tmp_path / "tests")
    for path in built.glob("*.deb"):
        shutil.copy(path, tmp_path)
    commands = """
        set -eu
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            man-db bash-completion /mnt/*.deb
        /mnt/tests/installed
        /mnt/tests/removal /mnt/*.deb
    """
    tried = subprocess.run(
        [DEBIAN / "tests" / "in-copy", tmp_path, "bash", "-c", commands],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert tried.returncode == 0, tried.stdout
    assert "* purged, nothing stays" in tried.stdout
