"""Files that others may write are opened without a trap and read within a limit."""

from __future__ import annotations

import os

import pytest

from miglet.safefile import NotPlain, fingerprint, open_folder, open_plain, read_small


def test_a_plain_file_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert read_small(tmp_path / "file", 7) == b"content"


def test_a_file_beyond_the_limit_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 8)
    with pytest.raises(NotPlain, match="larger than 7 bytes"):
        read_small(tmp_path / "file", 7)


def test_a_sparse_file_of_terabytes_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 8 << 40)
    with pytest.raises(NotPlain):
        read_small(tmp_path / "file", 100)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "symbolic link"),
        (lambda path: os.mkfifo(path), "not a regular file"),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: os.link(path.with_name("other"), path), "second link"),
    ],
)
def test_what_is_no_plain_file_is_refused_with_its_reason(tmp_path, make, reason):
    (tmp_path / "other").touch()
    make(tmp_path / "file")
    with pytest.raises(NotPlain, match=reason):
        open_plain(tmp_path / "file")


def test_a_file_that_is_not_there_is_an_ordinary_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_plain(tmp_path / "file")


def test_a_folder_is_opened_and_a_link_to_one_is_not(tmp_path):
    os.close(open_folder(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError):
        open_folder(tmp_path / "link")


def test_a_fingerprint_differs_when_the_content_does(tmp_path):
    (tmp_path / "file").write_text("a")
    before = fingerprint(tmp_path / "file")
    assert fingerprint(tmp_path / "file") == before
    (tmp_path / "file").write_text("ab")
    assert fingerprint(tmp_path / "file") != before
