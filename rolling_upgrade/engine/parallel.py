"""Run jobs in threads that never block an operator who presses Ctrl-C. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

#: The polling interval of a wait, and the time that abandoned jobs get to end.
LOOK_SECONDS, PARTING_SECONDS = 0.2, 1.5

T = TypeVar("T")


def at_once(jobs: Sequence[Callable[[], T]], parallel: int, ended: Event, *, finish: bool = False) -> list[T]:
    """Run the jobs, at most `parallel` at a time, and return their results in order. Errors are raised at the end.

    Ctrl-C starts no further job, sets `ended` for the running ones, and returns to the caller after at most
    PARTING_SECONDS. With `finish`, the first Ctrl-C waits for the running jobs and the second one abandons them.
    """
    futures = start(jobs, parallel, ended)
    interrupted = False
    while any(not future.done() for future in futures):
        try:
            wait(futures, timeout=LOOK_SECONDS)
        except KeyboardInterrupt:
            for future in futures:
                future.cancel()
            if interrupted or not finish:
                part(futures, ended)
                raise
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    return [future.result() for future in futures]


def start(jobs: Sequence[Callable[[], T]], parallel: int, ended: Event) -> list[Future[T]]:
    """Start the jobs in daemon threads; none starts once `ended` is set."""
    futures: list[Future[T]] = [Future() for _ in jobs]
    waiting: SimpleQueue[tuple[Future[T], Callable[[], T]]] = SimpleQueue()
    for pair in zip(futures, jobs, strict=True):
        waiting.put(pair)
    for _ in range(min(max(1, parallel), len(jobs))):
        Thread(target=_work, args=(waiting, ended), daemon=True).start()
    return futures


def part(futures: Sequence[Future[T]], ended: Event) -> None:
    """Cancel the jobs and wait a moment for them to end."""
    ended.set()
    wait([future for future in futures if future.running()], timeout=PARTING_SECONDS)


def _work(waiting: SimpleQueue[tuple[Future[T], Callable[[], T]]], ended: Event) -> None:
    while True:
        try:
            future, job = waiting.get_nowait()
        except Empty:
            return
        if ended.is_set():
            future.cancel()
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(job())
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            future.set_exception(error)


def listen(jobs: Sequence[Callable[[], T]], ended: Event, gone: Callable[[], bool] = lambda: False) -> list[T]:
    """Run all jobs at once and return their results in order. Errors are raised when all have ended.

    `ended`, which stops the jobs, is set by Ctrl-C, when `gone` reports that nobody reads the output, and at the end. A
    job that ignores it because its host does not answer is abandoned, and KeyboardInterrupt is raised.
    """
    futures = start(jobs, len(jobs), ended)
    try:
        while any(not future.done() for future in futures) and not gone():
            wait(futures, timeout=LOOK_SECONDS)
    except KeyboardInterrupt:
        pass
    finally:
        part(futures, ended)
    if any(not future.done() for future in futures):
        raise KeyboardInterrupt
    return [future.result() for future in futures]
