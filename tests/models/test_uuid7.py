"""Version 7 UUIDs: RFC 9562's layout, and an order that no clock, thread or fork breaks."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from threading import Barrier

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_toolsets.models.columns import Version7Generator, uuid7

MILLISECOND = 1_000_000
"""Nanoseconds."""
LAST_READING = (1 << 48) * MILLISECOND - 1
"""The last nanosecond that 48 bits of milliseconds can name."""


def generator_reading(readings: Iterable[int]) -> Version7Generator:
    """Make a generator whose clock shows these nanoseconds, one after the other."""
    return Version7Generator(clock=iter(readings).__next__)


def milliseconds_of(key: uuid.UUID) -> int:
    return key.int >> 80


def tick_of(key: uuid.UUID) -> int:
    """The clock and its fraction: everything in front of the random bits."""
    return milliseconds_of(key) << 12 | (key.int >> 64) & 0xFFF


def is_version_7(key: uuid.UUID) -> bool:
    return key.version == 7 and key.variant == uuid.RFC_4122


def test_example_of_the_standard() -> None:
    """RFC 9562, appendix A.6, with its clock and its random bits."""
    moment = datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)
    # Rounded up to the nanosecond at which the 12-bit fraction turns to the example's 0xCC3.
    fraction = -(-0xCC3 * MILLISECOND // 4096)
    nanoseconds = int(moment.timestamp()) * 1000 * MILLISECOND + fraction
    generate = Version7Generator(clock=lambda: nanoseconds, random_bits=lambda _count: 0x18C4DC0C0C07398F)
    assert generate() == uuid.UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")


def test_asks_for_every_bit_that_is_left() -> None:
    asked: list[int] = []

    def all_ones(count: int) -> int:
        asked.append(count)
        return (1 << count) - 1

    key = Version7Generator(clock=lambda: 0, random_bits=all_ones)()
    assert (asked, key) == ([62], uuid.UUID("00000000-0000-7001-bfff-ffffffffffff"))


@given(st.lists(st.integers(min_value=0, max_value=LAST_READING - MILLISECOND), min_size=1, max_size=60))
@example([5 * MILLISECOND, 0, 5 * MILLISECOND, 4 * MILLISECOND, 6 * MILLISECOND])
def test_grows_whatever_the_clock_shows(readings: list[int]) -> None:
    generate = generator_reading(readings)
    keys = [generate() for _ in readings]
    assert all(is_version_7(key) for key in keys)
    assert all(earlier < later for earlier, later in pairwise(keys))


@given(st.lists(st.integers(min_value=1, max_value=LAST_READING // MILLISECOND), min_size=1, max_size=60, unique=True))
def test_names_the_millisecond_of_a_clock_that_goes_forward(milliseconds: list[int]) -> None:
    milliseconds.sort()
    generate = generator_reading(moment * MILLISECOND for moment in milliseconds)
    assert [milliseconds_of(generate()) for _ in milliseconds] == milliseconds


@given(st.integers(min_value=MILLISECOND, max_value=LAST_READING - MILLISECOND), st.integers(min_value=1))
def test_clock_set_back_takes_the_next_tick(reading: int, step: int) -> None:
    generate = generator_reading([reading, reading - step, reading - 2 * step, reading + MILLISECOND])
    first, second, third, fourth = (tick_of(generate()) for _ in range(4))
    assert (second, third) == (first + 1, first + 2)
    assert fourth == max(first + 4096, third + 1)


def test_full_millisecond_runs_over_into_the_next() -> None:
    generate = Version7Generator(clock=lambda: MILLISECOND)
    keys = [generate() for _ in range(3 * 4096)]
    assert [tick_of(key) for key in keys] == list(range(4096, 4 * 4096))
    assert {milliseconds_of(key) for key in keys} == {1, 2, 3}


def test_clock_beyond_the_format_is_refused() -> None:
    generate = generator_reading([LAST_READING, LAST_READING + 1])
    assert milliseconds_of(generate()) == (1 << 48) - 1
    with pytest.raises(ValueError, match="128-bit"):
        generate()


def test_200_000_are_unique_and_in_order() -> None:
    keys = [uuid7() for _ in range(200_000)]
    assert len(set(keys)) == len(keys)
    assert sorted(keys) == keys
    assert all(is_version_7(key) for key in keys)


def test_names_the_present() -> None:
    before = datetime.now(UTC)
    keys = [uuid7(), Version7Generator()()]
    after = datetime.now(UTC)
    for key in keys:
        assert int(before.timestamp() * 1000) <= milliseconds_of(key) <= int(after.timestamp() * 1000)


def test_threads_share_no_tick_and_each_sees_its_own_grow() -> None:
    # A clock that stands still makes every call depend on the last: an unguarded counter would hand out ticks twice.
    generate = Version7Generator(clock=lambda: MILLISECOND)
    threads, each = 8, 5_000
    start = Barrier(threads)

    def work() -> list[uuid.UUID]:
        start.wait()
        return [generate() for _ in range(each)]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            results = [future.result() for future in [pool.submit(work) for _ in range(threads)]]
    finally:
        sys.setswitchinterval(interval)
    assert all(earlier < later for keys in results for earlier, later in pairwise(keys))
    assert sorted(tick_of(key) for keys in results for key in keys) == list(range(4096, 4096 + threads * each))


FORK = """
import os
from fastapi_toolsets.models.columns import uuid7

def report(pipe):
    with os.fdopen(pipe, "w") as stream:
        stream.write(" ".join(str(uuid7()) for _ in range(1000)))

before = uuid7()
reading, writing = os.pipe()
if os.fork() == 0:
    report(writing)
    raise SystemExit
os.close(writing)
mine = [uuid7() for _ in range(1000)]
with os.fdopen(reading) as stream:
    theirs = stream.read().split()
print(before, *mine, *theirs)
"""

FORK_WHILE_A_THREAD_HOLDS_THE_LOCK = """
import os, threading
from fastapi_toolsets.models import columns

held, done = threading.Event(), threading.Event()

def hold():
    with columns._generate_uuid7._lock:
        held.set()
        done.wait()

threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    print(columns.uuid7().version)
    raise SystemExit
done.set()
os.waitpid(child, 0)
"""


def run_script(script: str) -> str:
    """Run Python code in a process of its own, which may fork without taking pytest along."""
    # Python 3.12 and later warn of a fork beside threads, which is what one of the scripts is about.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_forked_process_makes_others_that_grow_too() -> None:
    before, *others = [uuid.UUID(word) for word in run_script(FORK).split()]
    parent, child = others[:1000], others[1000:]
    assert len(child) == 1000
    assert sorted(parent) == parent
    assert sorted(child) == child
    assert before < min(parent[0], child[0])
    assert len({*parent, *child}) == 2000


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_fork_while_a_thread_holds_the_lock_does_not_hang_the_child() -> None:
    assert run_script(FORK_WHILE_A_THREAD_HOLDS_THE_LOCK) == "7\n"
