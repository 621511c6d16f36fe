"""Jobs in threads, and an operator who presses Ctrl-C at any moment."""

from __future__ import annotations

from threading import Event, Thread

import pytest

from rolling_upgrade.engine import parallel


class Interrupted(Thread):
    """A thread that is interrupted after its job has started, while its starter waits for it."""

    begun = Event()

    def start(self) -> None:
        super().start()
        assert self.begun.wait(10)
        raise KeyboardInterrupt


@pytest.mark.parametrize("finish", [True, False])
def test_run_jobs_ctrl_c_while_jobs_start_lets_them_finish_or_ends_them(
    monkeypatch: pytest.MonkeyPatch, finish: bool
) -> None:
    begun, ended, done = Event(), Event(), []
    monkeypatch.setattr(Interrupted, "begun", begun)
    monkeypatch.setattr(parallel, "Thread", Interrupted)

    def job() -> None:
        begun.set()
        done.append("told to end" if ended.wait(0.5) else "finished")

    with pytest.raises(KeyboardInterrupt):
        parallel.run_jobs([job, job], 2, ended, finish=finish)

    assert done == ["finished" if finish else "told to end"]
    assert ended.is_set() is not finish
