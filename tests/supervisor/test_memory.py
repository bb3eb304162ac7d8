"""Memory that the processes share, and what each of them releases when it rests."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from miglet.supervisor import memory
from miglet.supervisor.memory import (
    COLLECTION_SECONDS,
    MemoryTimer,
    unmap_program_files,
)

#: Fills the interpreter's list of free tuples of one length.
FREE_TUPLES = "many = [tuple(range(n, n + 7)) for n in range(1000, 3000)]; del many\n"


def result_of(script: str) -> Any:
    """What `script` prints as JSON, in an interpreter of its own."""
    prologue = "import gc, json, os, sys\ngc.disable()\n"
    command = [sys.executable, "-c", prologue + script]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def mapped_file_pages() -> int:
    """The kilobytes of mapped files that are in our memory (proc(5))."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssFile:")[2].split()[0])


def test_what_is_kept_of_freed_tuples_is_given_back_when_it_is_time():
    now = time.monotonic()
    timer = MemoryTimer()
    many = [tuple(range(number, number + 7)) for number in range(1000, 3000)]
    del many
    kept = sys.getallocatedblocks()
    timer.release_if_due(now)
    assert sys.getallocatedblocks() > kept - 500
    timer.release_if_due(time.monotonic() + COLLECTION_SECONDS)
    assert sys.getallocatedblocks() < kept - 1000


def test_a_child_finds_no_lists_of_free_objects_to_give_back():
    freed = result_of(
        f"{FREE_TUPLES}"
        "from miglet.supervisor.memory import share_with_children\n"
        "share_with_children()\n"
        "before = sys.getallocatedblocks()\n"
        "gc.collect()\n"
        "print(json.dumps(before - sys.getallocatedblocks()))\n"
    )
    assert freed < 100


def test_what_is_shared_is_never_looked_at_by_the_garbage_collector():
    frozen, collected = result_of(
        "from miglet.supervisor.memory import share_with_children\n"
        "loop = []; loop.append(loop); del loop\n"
        "share_with_children()\n"
        "print(json.dumps([gc.get_freeze_count(), gc.collect()]))\n"
    )
    assert frozen > 1000
    assert collected == 0


def test_what_a_child_makes_lies_on_pages_of_its_own():
    shared, fresh = result_of(
        "from miglet.supervisor.memory import share_with_children\n"
        "many = [bytes(60) for n in range(5000)]\n"
        "shared = {id(each) // 4096 for each in many}\n"
        "many = many[::7]\n"
        "share_with_children()\n"
        "fresh = {id(each) // 4096 for each in [bytes(60) for n in range(400)]}\n"
        "print(json.dumps([len(shared & fresh), len(fresh)]))\n"
    )
    assert shared == 0
    assert fresh < 30


@pytest.mark.parametrize("allocator", ["malloc", "pymalloc_debug"])
def test_an_interpreter_that_allocates_in_another_way_is_not_filled(
    allocator, monkeypatch
):
    monkeypatch.setenv("PYTHONMALLOC", allocator)
    grown = result_of(
        "from miglet.supervisor.memory import fill_pools\n"
        "from pathlib import Path\n"
        "pages = lambda: int(Path('/proc/self/statm').read_text().split()[1])\n"
        "before = pages()\n"
        "fill_pools()\n"
        "print(json.dumps((pages() - before) * os.sysconf('SC_PAGE_SIZE')))\n"
    )
    assert grown < 4 << 20


def test_program_files_are_unmapped_and_mapped_again_when_they_are_needed():
    before = mapped_file_pages()
    unmap_program_files()
    assert mapped_file_pages() < before
    assert json.loads(json.dumps({"still": "here"})) == {"still": "here"}


def test_program_files_are_unmapped_once_when_the_start_is_long_over(monkeypatch):
    calls: list[None] = []
    monkeypatch.setattr(memory, "unmap_program_files", lambda: calls.append(None))
    now = time.monotonic()
    timer = MemoryTimer()
    timer.release_if_due(now)
    assert not calls
    for count in range(1, 4):
        timer.release_if_due(now + 2 * count * COLLECTION_SECONDS)
    assert len(calls) == 1


def test_memory_is_not_read_from_a_proc_that_is_not_for_us(monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("builtins.open", refuse)
    unmap_program_files()
