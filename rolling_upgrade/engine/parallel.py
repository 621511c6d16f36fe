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
    futures: list[Future[T]] = [Future() for _ in jobs]
    try:
        _start(futures, jobs, parallel, ended)
        _wait(futures)
    except KeyboardInterrupt:
        for future in futures:
            future.cancel()
        try:
            if not finish:
                raise
            _wait(futures)
        except KeyboardInterrupt:
            _part(futures, ended)
            raise
        raise
    return [future.result() for future in futures]


def _start(futures: list[Future[T]], jobs: Sequence[Callable[[], T]], parallel: int, ended: Event) -> None:
    """Start the jobs of the futures in daemon threads; none starts once `ended` is set."""
    waiting: SimpleQueue[tuple[Future[T], Callable[[], T]]] = SimpleQueue()
    for pair in zip(futures, jobs, strict=True):
        waiting.put(pair)
    for _ in range(min(max(1, parallel), len(jobs))):
        Thread(target=_work, args=(waiting, ended), daemon=True).start()


def _wait(futures: Sequence[Future[T]], gone: Callable[[], bool] = lambda: False) -> None:
    """Wait until the jobs have ended or `gone` says that nobody needs them; Ctrl-C interrupts the wait."""
    while any(not future.done() for future in futures) and not gone():
        wait(futures, timeout=LOOK_SECONDS)


def _part(futures: Sequence[Future[T]], ended: Event) -> None:
    """Set `ended`, and give the running jobs a moment to end."""
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
    futures: list[Future[T]] = [Future() for _ in jobs]
    try:
        _start(futures, jobs, len(jobs), ended)
        _wait(futures, gone)
    except KeyboardInterrupt:
        pass
    finally:
        _part(futures, ended)
    if any(not future.done() for future in futures):
        raise KeyboardInterrupt
    return [future.result() for future in futures]
