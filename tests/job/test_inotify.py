"""inotify: what wakes a reader, also for folders that do not exist yet."""

import os
import resource
import select

import pytest

from miglet.job.inotify import (
    CLOSED_AFTER_WRITE,
    CREATED,
    MODIFIED,
    MOVED_IN,
    OVERFLOWED,
    Inotify,
)


@pytest.fixture
def inotify():
    made = Inotify()
    yield made
    made.close()


def wakes(inotify, seconds=5.0):
    return bool(select.select([inotify.fileno()], [], [], seconds)[0])


def test_a_change_wakes_and_names_the_file(inotify, tmp_path):
    number = inotify.watch(tmp_path, MODIFIED | CREATED)
    (tmp_path / "output").write_text("x")
    assert wakes(inotify)
    events = inotify.drain()
    assert {(event.watch, event.name) for event in events} == {(number, "output")}
    assert not any(event.mask & OVERFLOWED for event in events)


def test_nothing_happened_is_an_empty_list_at_once(inotify, tmp_path):
    inotify.watch(tmp_path, MODIFIED)
    assert inotify.drain() == []
    assert not wakes(inotify, 0)


def test_a_folder_that_comes_later_is_watched_when_it_comes(inotify, tmp_path):
    later = tmp_path / "a" / "b"
    inotify.watch(later, CLOSED_AFTER_WRITE | MOVED_IN)
    (tmp_path / "a").mkdir()
    assert wakes(inotify)
    inotify.drain()
    later.mkdir()
    assert wakes(inotify)
    inotify.drain()
    (later / "report").write_text("x")
    assert wakes(inotify)
    assert "report" in {event.name for event in inotify.drain()}


def test_a_folder_made_anew_is_watched_again(inotify, tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    inotify.watch(folder, CREATED)
    folder.rmdir()
    inotify.drain()
    folder.mkdir()
    assert wakes(inotify)
    inotify.drain()
    (folder / "x").write_text("")
    assert wakes(inotify)
    assert "x" in {event.name for event in inotify.drain()}


def test_masks_for_the_same_folder_add_up(inotify, tmp_path):
    inotify.watch(tmp_path, MODIFIED)
    inotify.watch(tmp_path, MOVED_IN)
    (tmp_path / "x").write_text("x")
    assert any(event.mask & MODIFIED for event in inotify.drain())


def test_a_link_is_not_followed(inotify, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    inotify.watch(tmp_path / "link", CREATED | MODIFIED)
    (tmp_path / "real" / "x").write_text("x")
    assert inotify.drain() == []


def test_the_descriptor_is_not_inherited_and_does_not_block(inotify):
    assert not os.get_inheritable(inotify.fileno())
    assert not os.get_blocking(inotify.fileno())


def test_an_overflow_is_reported(inotify, tmp_path):
    with open("/proc/sys/fs/inotify/max_queued_events") as limit:
        room = int(limit.read())
    if room > 50_000:
        pytest.skip("the queue is too large to be filled in a test")
    inotify.watch(tmp_path, CREATED | MODIFIED)
    with open(tmp_path / "a", "wb", 0) as one, open(tmp_path / "b", "wb", 0) as other:
        for _ in range(room // 2 + 10):
            one.write(b"x")
            other.write(b"x")
    events = []
    while fresh := inotify.drain():
        events += fresh
    assert events[-1].mask & OVERFLOWED


def test_where_the_kernel_grants_none_an_os_error_says_so():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="inotify_init1"):
            Inotify()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
