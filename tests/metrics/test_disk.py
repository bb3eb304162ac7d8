"""Which disk a path is on that may not exist yet."""

from __future__ import annotations

from pathlib import Path

from miglet.metrics.disk import existing


def test_what_exists_is_its_own_place(tmp_path):
    (tmp_path / "file").touch()
    assert existing(tmp_path / "file") == tmp_path / "file"


def test_what_does_not_exist_will_be_where_its_nearest_parent_is(tmp_path):
    assert existing(tmp_path / "not" / "yet" / "there") == tmp_path
    assert existing(Path("/miglet-not-there/below")) == Path("/")


def test_a_relative_path_without_a_parent_that_exists_is_in_the_working_folder():
    assert existing(Path("miglet-not-there/below")) == Path(".")
