"""Reading ahead and writing behind: order, bounds, and what happens to exceptions."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from propl_monai.inference.threads import BackgroundWriter, prefetch


def counting(made: list[int], until: int = 10) -> Iterator[int]:
    for number in range(until):
        made.append(number)
        yield number


def test_items_come_in_order_from_another_thread() -> None:
    def names() -> Iterator[str]:
        for _ in range(3):
            yield threading.current_thread().name

    assert list(prefetch(counting([]), 3)) == list(range(10)) and list(prefetch(iter(()))) == []
    assert all(name.startswith("prefetch") for name in prefetch(names()))


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_items_are_made_than_may_wait(depth: int) -> None:
    made: list[int] = []
    items = prefetch(counting(made), depth)
    assert [next(items), next(items)] == [0, 1]
    time.sleep(0.05)  # for a thread that did not stop
    items.close()
    assert 2 <= len(made) <= 2 + depth


def test_items_that_wait_are_not_made_after_the_end() -> None:
    made: list[int] = []

    def slow() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number
            time.sleep(0.1)

    items = prefetch(slow(), 5)
    next(items)
    items.close()
    assert len(made) <= 2


def test_the_next_item_is_made_while_the_caller_works() -> None:
    made = threading.Event()

    def two() -> Iterator[int]:
        yield 1
        made.set()
        yield 2

    items = prefetch(two())
    assert next(items) == 1 and made.wait(10) and list(items) == [2]


def test_an_exception_comes_at_its_item() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    items = prefetch(broken(), 4)
    assert next(items) == 1
    with pytest.raises(KeyError, match="two"):
        next(items)


def test_calls_are_made_in_order_in_another_thread_and_are_waited_for() -> None:
    made: list[tuple[int, bool]] = []

    def work(number: int) -> None:
        time.sleep(0.01)
        made.append((number, threading.current_thread().name.startswith("writer")))

    with BackgroundWriter(3) as later:
        for number in range(8):
            later(work, number)
    assert made == [(number, True) for number in range(8)]


def test_no_more_calls_wait_than_may() -> None:
    given: list[int] = []
    too_many: list[int] = []

    def work(number: int) -> None:
        time.sleep(0.02)  # for a caller that did not wait
        if len(given) > number + 2:
            too_many.append(number)

    with BackgroundWriter(2) as later:
        for number in range(5):
            later(work, number)
            given.append(number)
    assert too_many == []


def test_after_a_failure_no_call_is_made_and_the_caller_is_told() -> None:
    made: list[int] = []

    def work(number: int) -> None:
        made.append(number)
        if number == 1:
            raise OSError("full")

    given = 0
    with pytest.raises(OSError, match="full"), BackgroundWriter(2) as later:
        for number in range(50):
            later(work, number)
            given += 1
    assert made == [0, 1] and given <= 4


def test_a_failure_of_the_last_call_is_told_at_the_end() -> None:
    with pytest.raises(ZeroDivisionError), BackgroundWriter(5) as later:
        later(divmod, 1, 0)


def test_calls_that_were_given_are_made_when_the_block_fails() -> None:
    made: list[int] = []
    with pytest.raises(KeyboardInterrupt), BackgroundWriter(5) as later:
        for number in range(3):
            later(made.append, number)
        raise KeyboardInterrupt
    assert made == [0, 1, 2]


def test_what_needs_no_order_runs_side_by_side_and_is_taken_in_order() -> None:
    """Three wait for one another, so all of them have begun before the first has ended."""
    met, taken = threading.Barrier(3, timeout=10), []

    def early(number: int) -> int:
        met.wait()
        return number * number

    with BackgroundWriter(6, threads=3) as later:
        for number in range(6):
            later.after(early, number, work=taken.append)
        later(taken.append, "last")
    assert taken == [0, 1, 4, 9, 16, 25, "last"]


def test_a_failure_before_its_turn_lets_the_calls_before_it_be_made() -> None:
    taken: list[int] = []

    def early(number: int) -> int:
        if number == 2:
            raise OSError("full")
        time.sleep(0.02)
        return number

    given = 0
    with pytest.raises(OSError, match="full"), BackgroundWriter(3, threads=3) as later:
        for number in range(50):
            later.after(early, number, work=taken.append)
            given += 1
    assert taken == [0, 1] and given <= 6
