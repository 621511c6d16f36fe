"""Run jobs in threads, such as one per host; Ctrl-C always returns control to the operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

from rolling_upgrade.engine.host import Cancelled, Host, given_up, malformed_answer
from rolling_upgrade.engine.untrusted import Malformed
from rolling_upgrade.errors import ConnectionDropped, HostUnreachable, RollingError, unexpected

#: The polling interval of a wait, and the time that abandoned jobs get to end.
POLL_SECONDS, ABANDON_SECONDS = 0.2, 1.5

T = TypeVar("T")


def on_each(
    hosts: Sequence[Host],
    parallel: int,
    do: Callable[[Host], T],
    *,
    finish: bool = False,
    on_interrupt: Callable[[], None] = lambda: None,
) -> dict[str, T | HostUnreachable]:
    """Call `do` for every host, at most `parallel` at a time.

    The result of an unreachable host, and of one with a malformed answer, is its error. Ctrl-C cancels the calls. With
    `finish`, for calls that change hosts, the first Ctrl-C calls `on_interrupt` and waits for the running calls.
    """
    ended = Event()

    def call(host: Host) -> T | HostUnreachable:
        given_up.set(ended)
        try:
            return do(host)
        except HostUnreachable as error:
            return error
        except ConnectionDropped as error:
            return HostUnreachable(error.message, next_step=error.next_step)
        except Malformed as error:
            return malformed_answer(host.name, f"its answer is malformed: {error}")
        except (Cancelled, RollingError):
            raise
        except Exception as error:  # noqa: BLE001 - a defect in the work on one host must not end the others
            return unexpected(host.name, error, HostUnreachable, next_step=f"--hosts leaves {host.name} out")

    jobs = [partial(call, host) for host in hosts]
    results = run_jobs(jobs, parallel, ended, finish=finish, on_interrupt=on_interrupt)
    return dict(zip((host.name for host in hosts), results, strict=True))


def run_jobs(
    jobs: Sequence[Callable[[], T]],
    parallel: int,
    ended: Event,
    *,
    finish: bool = False,
    on_interrupt: Callable[[], None] = lambda: None,
) -> list[T]:
    """Run the jobs, at most `parallel` at a time, and return their results in order. Errors are raised at the end.

    Ctrl-C starts no further job, sets `ended` for the running ones, and returns to the caller after at most
    ABANDON_SECONDS. With `finish`, the first Ctrl-C calls `on_interrupt` and waits for the running jobs; the second
    one abandons them.
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
            on_interrupt()
            _wait(futures)
        except KeyboardInterrupt:
            _end(futures, ended)
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


def _wait(futures: Sequence[Future[T]], reader_left: Callable[[], bool] = lambda: False) -> None:
    """Wait until the jobs have ended or `reader_left` returns True; Ctrl-C interrupts the wait."""
    while any(not future.done() for future in futures) and not reader_left():
        wait(futures, timeout=POLL_SECONDS)


def _end(futures: Sequence[Future[T]], ended: Event) -> None:
    """Set `ended`, and give the running jobs a moment to end."""
    ended.set()
    wait([future for future in futures if future.running()], timeout=ABANDON_SECONDS)


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


def run_streams(
    jobs: Sequence[Callable[[], T]], ended: Event, reader_left: Callable[[], bool] = lambda: False
) -> list[T]:
    """Run all jobs at once and return their results in order. Errors are raised when all have ended.

    `ended`, which stops the jobs, is set by Ctrl-C, once `reader_left` returns True, and at the end. A job that ignores
    it because its host does not answer is abandoned, and KeyboardInterrupt is raised.
    """
    futures: list[Future[T]] = [Future() for _ in jobs]
    try:
        _start(futures, jobs, len(jobs), ended)
        _wait(futures, reader_left)
    except KeyboardInterrupt:
        pass
    finally:
        _end(futures, ended)
    if any(not future.done() for future in futures):
        raise KeyboardInterrupt
    return [future.result() for future in futures]
