"""What jsonschema brings along is spared, and it judges as ever."""

from __future__ import annotations

from typing import Any

import pytest

from tests import fresh_interpreter

pytestmark = pytest.mark.integration

PROLOGUE = "from miglet.supervisor import lean_imports, lean_jsonschema\n"


def evaluate(script: str, value: str) -> Any:
    """What `value` is after the import and `script`."""
    return fresh_interpreter.evaluate(PROLOGUE + script, value)


def test_what_no_schema_of_ours_needs_is_not_in_memory():
    loaded = set(evaluate("", "sorted(sys.modules)"))
    assert "jsonschema" in loaded
    spared = {"ast", "http.client", "typing_extensions", "urllib.request"}
    assert loaded.isdisjoint({*spared, *evaluate("", "lean_jsonschema.FORMATS")})


def test_a_validator_finds_what_is_wrong():
    schema = {"properties": {"a": {"type": "number", "minimum": 1}}, "required": ["b"]}
    script = f"import jsonschema; judge = jsonschema.Draft7Validator({schema!r})"
    found = "sorted(each.validator for each in judge.iter_errors({'a': 0}))"
    assert evaluate(script, found) == ["minimum", "required"]


def test_references_within_a_schema_are_followed():
    schema = {"$ref": "#/definitions/n", "definitions": {"n": {"type": "null"}}}
    script = f"import jsonschema; judge = jsonschema.Draft7Validator({schema!r})"
    assert evaluate(script, "[judge.is_valid(None), judge.is_valid(1)]") == [
        True,
        False,
    ]


@pytest.mark.parametrize("name", ["idna", "typing_extensions", "urllib.request"])
def test_who_needs_it_afterwards_gets_the_real_module(name):
    pytest.importorskip(name)
    file = f"sys.modules[{name!r}].__file__"
    assert evaluate(f"import {name}", file).endswith(".py")


def test_signatures_are_found_again_afterwards():
    script = "import inspect"
    assert evaluate(script, "str(inspect.signature(lambda a: a))") == "(a)"


def test_a_type_variable_does_without_its_default():
    script = "made = lean_jsonschema.type_variable('T', bound=int, default=bool)"
    assert evaluate(script, "[made.__name__, made.__bound__ is int]") == ["T", True]


def test_nothing_is_replaced_where_inspect_is_loaded_already():
    script = "import inspect; inspect.isfunction(len)\nimport inspect as real"
    script += "\nwith lean_jsonschema.functions_without_signatures():"
    script += "\n    told = str(real.signature(lambda a: a))"
    assert evaluate(script, "told") == "(a)"
