"""Several streams at once, until all have ended or a person wants no more of them. It prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event
from typing import TypeVar

_LOOK_SECONDS = 0.2

T = TypeVar("T")


def listen(jobs: Sequence[Callable[[], T]], ended: Event, gone: Callable[[], bool] = lambda: False) -> list[T]:
    """Do all jobs at once and give their results in order; what one raises is raised when all have ended.

    `ended` is set, for the jobs to stop, by Ctrl-C, when `gone` says that nobody reads any more, and at the end.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(jobs))) as pool:
        futures = [pool.submit(job) for job in jobs]
        pending = set(futures)
        try:
            while pending and not gone():
                _, pending = wait(pending, timeout=_LOOK_SECONDS)
        except KeyboardInterrupt:
            pass
        finally:
            ended.set()
    return [future.result() for future in futures]
