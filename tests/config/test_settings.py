"""Settings as a value: read by attribute, compared, never changed, cheap to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import miglet.config.settings
from miglet.config import docs
from miglet.config.schema import KEYS, SCHEMA, SECTIONS
from miglet.config.settings import RUNTIME_KEYS, Settings
from miglet.workers.registry import NAMES


def test_the_module_is_what_the_schema_makes_of_it():
    module = Path(miglet.config.settings.__file__)
    assert module.read_text() == docs.settings_module(), (
        "python -m miglet.config.docs settings miglet/config/settings.py"
    )


def test_the_keys_that_may_change_at_run_time_are_known_without_the_schema():
    assert {key.name for key in KEYS.values() if key.runtime} == RUNTIME_KEYS


def test_no_key_is_hidden_by_a_method():
    names = {part for key in [*KEYS, *SECTIONS] for part in key.split(".")}
    assert not names & set(dir(Settings))


def test_every_key_says_what_it_is():
    for key in KEYS.values():
        assert key.rules["description"].endswith("."), key.name
        assert "x-runtime" in key.rules, f"{key.name}: x-runtime is true or false"
        assert key.required == ("default" not in key.rules), key.name
        assert not key.required or key.rules["examples"], key.name


#: Who may apply a change: a worker by its name, or a part of the parent.
APPLIERS = {*NAMES, "arbiter", "daemon", "lifecycle", "workers"}


def test_every_key_that_may_change_at_run_time_says_who_applies_the_change():
    for key in KEYS.values():
        appliers = key.rules.get("x-applied-by", [])
        both = f"{key.name}: x-applied-by goes with x-runtime: true, and only with it"
        assert bool(appliers) is key.runtime, both
        assert set(appliers) <= APPLIERS, key.name


def test_the_schema_is_a_draft_7_schema():
    import jsonschema

    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert "draft-07" in SCHEMA["$schema"]


def test_the_parent_pays_for_neither_yaml_nor_json_schema():
    program = (
        "import sys; import miglet.config.settings;"
        "print(sorted({'yaml', 'jsonschema'} & {*sys.modules}))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
