"""Streams that threads make ahead of their use."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
PRODUCER = "decoding"  # name of the thread of `ahead`


def in_order(function: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """`map` in threads, no more than two items for each of them ahead; without threads for `workers` 0."""
    if not workers:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[B]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def ahead(items: Iterable[A], size: int) -> Iterator[A]:
    """The same items, made in a thread that is at most `size` of them ahead. An exception there is raised here."""
    waiting: queue.Queue[tuple[str, A | BaseException | None]] = queue.Queue(size)
    ended = threading.Event()

    def put(kind: str, item: A | BaseException | None) -> bool:
        while not ended.is_set():
            try:
                waiting.put((kind, item), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:  # handed over, whatever it is
            put("error", error)

    thread = threading.Thread(target=make, daemon=True, name=PRODUCER)
    thread.start()
    try:
        while True:
            kind, item = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(item, BaseException)
                raise item
            yield item  # type: ignore[misc]
    finally:
        ended.set()
        thread.join()
