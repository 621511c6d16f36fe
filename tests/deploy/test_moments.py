"""Faults at each moment of a run, under the strict load client: no failed request, no lost write, and a sound end.

Each fault hits deploys, rollbacks and restores at MOMENTS moments, which MOMENTS_SEED selects; a failure prints both.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

import pytest

from lab.host import Host
from lab.load import Kind, Load, LoadResult, Server
from rolling_upgrade.errors import RollingError
from tests.deploy import moments
from tests.deploy.conftest import DOMAIN, Site, wait_until
from tests.deploy.fork_server import ForkedTask
from tests.deploy.moments import (
    CANCEL,
    CHANGED,
    CLOSE_SSH,
    DEPLOY,
    DROP_SSH,
    END_SECONDS,
    KILL,
    LEASE_SECONDS,
    RESET_SSH,
    RESTORE,
    ROLLBACK,
    SESSIONS,
    Agreed,
    Moment,
    Operation,
    Run,
    agree,
    assert_outcome,
    end_task,
    lift,
    newest_run,
    reach,
    start,
    wait_for_end,
)
from tests.deploy.sqlite import ask

pytestmark = pytest.mark.extended

#: The visitors of a restore get the maintenance page. Health paths, which only readers request, bypass it.
_PAGE = re.compile(r"wrong status \((503 instead of|502 instead of 200)")


@dataclass(frozen=True)
class Arena:
    """A host on which one run after the other is hit by a fault.

    Attributes:
        backup: the backup that the restores bring back.
        record: stores a figure of the test in the report.
    """

    site: Site
    host: Host
    backup: str
    record: Callable[[str, object], None]

    def words(self, operation: Operation, before: Agreed) -> tuple[tuple[str, ...], str]:
        """Return the command of an operation, and the tag that the host serves after it."""
        other = "v1" if before.tag == "v2" else "v2"
        if operation is DEPLOY:
            words: tuple[str, ...] = ("deploy", "--tag", other)
        elif operation is ROLLBACK:
            words = ("rollback", "--to", _release(before, other))
        else:
            words, other = ("restore", self.backup), before.tag
        return (*words, "--hosts", self.host.name), other

    @contextmanager
    def load(self, *, failures: Callable[[str], bool] = lambda _: False) -> Iterator[list[LoadResult]]:
        """Load the host. Only the failures whose text `failures` accepts may happen. The list gets the result.

        The caller has to check the writes that are lost.
        """
        results: list[LoadResult] = []
        with Load([Server(self.host.name, self.host.address, 80)], DOMAIN, moments.LOAD) as load:
            wait_until(lambda: load.progress.requests > 0, "the load", pause=0.1)
            yield results
            result = load.stop()
        failed = [str(record) for record in result.failures if record.kind is not Kind.READ_BACK]
        unexpected = [text for text in failed if not failures(text)]
        figures = (len(result.records), len(failed) - len(unexpected), len(unexpected))
        for name, figure in zip(("requests", "accepted_failures", "failed"), figures, strict=True):
            self.record(name, figure)
        self.record("writes", result.writes_acknowledged)
        self.record("replaced_writes", result.writes_lost)
        assert result.writes_acknowledged > 0
        assert unexpected == []
        results.append(result)


def _release(before: Agreed, tag: str) -> str:
    """Return the newest deployed release with this tag."""
    for line in reversed(before.history):
        services = line["services"]
        assert isinstance(services, dict)
        is_release = (line["action"], line["outcome"]) == ("deploy", "good")
        if is_release and services["backend"]["image"].endswith(f":{tag}"):
            return str(line["id"])
    raise AssertionError(f"no good release {tag}")


@pytest.fixture(scope="module")
def loaded_site(prepared_site: Site) -> Site:
    """The prepared hosts with the releases v1 and v2, the shortest lease, and a bake during which faults can happen."""
    prepared_site.edit_rollout(lease_seconds=LEASE_SECONDS, bake_seconds=1, retain_releases=20)
    return replace(prepared_site, lab=replace(prepared_site.lab, hosts=prepared_site.lab.hosts[:1]))


@pytest.fixture
def arena(loaded_site: Site, record_property: Callable[[str, object], None]) -> Iterator[Arena]:
    """The first host, healthy. After a test that leaves it in another state, it boots from its saved disks."""
    site, host = loaded_site, loaded_site.lab.hosts[0]
    try:
        agree(site, host)
    except (AssertionError, OSError):
        lift(host)
        host.restore()
        wait_until(lambda: site.serves(host, "v1"), "v1", 90)
    alone = ("--hosts", host.name)
    if not {"v1", "v2"} <= {str(line["services"]["backend"]["image"])[-2:] for line in agree(site, host).history}:  # type: ignore[index]
        site.deploy_ok("v2", *alone)
    if not (backups := _backups(host)):
        site.run_ok("backup", *alone)
        backups = _backups(host)
    yield Arena(site, host, backups[0], record_property)
    lift(host)


def _backups(host: Host) -> list[str]:
    """Return the ids of the backups that contain uploads, oldest first."""
    names = host.sh("ls /home/deploy/backups/uploads 2>/dev/null || :").stdout.split()
    return sorted(name.removeprefix("memoryark-").removesuffix(".uploads") for name in names)


def moments_of(fault: str) -> pytest.MarkDecorator:
    """Parametrize a test with the moments of a fault."""
    return pytest.mark.parametrize("moment", [pytest.param(each, id=str(each)) for each in moments.moments(fault)])


@dataclass(frozen=True)
class Hit:
    """A run that was hit by a fault, and the state before it."""

    moment: Moment
    task: ForkedTask
    before: Agreed
    last_run: str
    wanted: str
    at: float


@contextmanager
def hit(
    arena: Arena, moment: Moment, then: str = "", *, failures: Callable[[str], bool] | None = None
) -> Iterator[Hit]:
    """Run an operation under load and wait for the moment, then execute `then` on its host.

    At the end, the load must have lost nothing.
    """
    operation, host = moment.operation, arena.host
    print(moment.place)
    before, last_run = agree(arena.site, host), newest_run(host)
    words, wanted = arena.words(operation, before)
    accepted = failures or (lambda text: operation is RESTORE and bool(_PAGE.search(text)))
    with arena.load(failures=accepted) as results:
        task = start(arena.site, *words)
        try:
            try:
                reach(host, moment, last_run, then)
            except RollingError as error:
                KILL(task)
                pytest.fail(f"{error}\n{end_task(task)[1]}")
            yield Hit(moment, task, before, last_run, wanted, time.monotonic())
        finally:
            KILL(task)
    assert_kept(host, results[0], last_run)


def assert_kept(host: Host, load: LoadResult, last_run: str) -> None:
    """Assert that every acknowledged write is there, or in the backup that a good restore after this run has taken."""
    kept: set[str] = set()
    history = [json.loads(line) for line in host.sh(f"cat {moments.APP}/releases.jsonl").stdout.splitlines()]
    for line in history:
        if line["id"] > last_run and (line["action"], line["outcome"]) == ("restore", "good"):
            database = f"/home/deploy/backups/database/memoryark-{line['id']}/database.db"
            files = host.sh(f"ls /home/deploy/backups/uploads/memoryark-{line['id']}.uploads/files").stdout.split()
            kept |= {row[0] for row in ask(host, database, "select id from uploads")} & set(files)
    lost = {text.partition("upload ")[2].partition(":")[0] for text in load.lost}
    assert lost - kept == set()


def concluded(arena: Arena, hit: Hit, seconds: float = END_SECONDS) -> Run | None:
    """Wait for the end of the run on its host, and assert that everything on the host agrees with it."""
    run = wait_for_end(arena.host, hit.last_run, seconds)
    arena.record("end_seconds", round(time.monotonic() - hit.at, 1))
    arena.record("result", run.result if run else "no run")
    assert_outcome(run, hit.moment, hit.before, agree(arena.site, arena.host), hit.wanted)
    return run


def assert_ended_alone(run: Run | None, moment: Moment) -> None:
    """Assert that a run without its workstation ended as it had to: completed after `go`, unchanged before."""
    if run is None:
        assert not moment.step
    elif run.is_changing(moment.operation):
        assert run.result in CHANGED, run
    else:
        assert run.result == "not-started", run


@moments_of("killed")
def test_workstation_killed(arena: Arena, moment: Moment) -> None:
    """Before `go`, the host releases everything within the lease; after it, the host completes the run."""
    with hit(arena, moment) as fault:
        KILL(fault.task)
        end_task(fault.task)
        # The killed process may have sent the start of a run that has not begun on the host.
        wait_until(lambda: arena.host.sh(SESSIONS, check=False).returncode, "the end of its SSH sessions", pause=0.1)
        run = concluded(arena, fault, LEASE_SECONDS + 10)
    assert_ended_alone(run, moment)


@moments_of("dropped")
def test_connection_dropped_for_good(arena: Arena, moment: Moment) -> None:
    """As if the workstation were gone. It reports that it does not know the outcome, or that it reached no host."""
    with hit(arena, moment, DROP_SSH) as fault:
        code, output = end_task(fault.task)
        lift(arena.host)
        run = concluded(arena, fault, LEASE_SECONDS + 10)
    assert_ended_alone(run, moment)
    assert code in {3, 6} or (moment.step in {"", "record"} and code == 0), output


@moments_of("paused")
def test_connection_dropped_for_a_while(arena: Arena, moment: Moment) -> None:
    """The workstation continues when the packets pass again, and completes its run."""
    seconds = Random(f"{moments.SEED} {moment}").uniform(1, 20)  # noqa: S311
    print(f"dropped for {seconds:.1f} s")
    survive(arena, moment, DROP_SSH, seconds)


@moments_of("closed")
def test_connection_closed(arena: Arena, moment: Moment) -> None:
    """The workstation reconnects and completes its run."""
    survive(arena, moment, CLOSE_SSH)


@moments_of("reset")
def test_connection_reset(arena: Arena, moment: Moment) -> None:
    """Each packet is answered with a reset for three seconds. The workstation reconnects and completes its run."""
    survive(arena, moment, RESET_SSH, 3)


def survive(arena: Arena, moment: Moment, fault_script: str, seconds: float = 0) -> None:
    """Disturb the connection for some seconds, and assert that the workstation completes its run.

    Before the run exists, it may give up instead.
    """
    with hit(arena, moment, fault_script) as fault:
        time.sleep(seconds)
        lift(arena.host)
        code, output = end_task(fault.task)
        run = concluded(arena, fault)
    if run is None:
        assert not moment.step
        assert code == 3, output
        return
    assert (code, run.result in CHANGED) == (0, True), output


@moments_of("cancelled")
def test_cancelled(arena: Arena, moment: Moment) -> None:
    """Ctrl-C undoes the run, unless only final steps are left: these are completed."""
    with hit(arena, moment) as fault:
        CANCEL(fault.task)
        code, output = end_task(fault.task)
        run = concluded(arena, fault, 5)
    is_done = run is not None and run.result in CHANGED
    assert code == (0 if is_done else 130), output
    if moment.step in moment.operation.final:
        assert is_done, output
    elif moment.step != moment.operation.changing[-1] or moment.phase == "started":
        assert not is_done, output


@moments_of("power")
def test_power_cut_of_the_host(arena: Arena, moment: Moment) -> None:
    """The workstation reconnects after the boot, and ends the run; the host may not lose a write."""
    with hit(arena, moment, failures=lambda _: True) as fault:
        arena.host.power_cut()
        code, output = end_task(fault.task)
        converge(arena)
        run = concluded(arena, fault, 5)
    arena.record("exit_code", code)
    if run is None:
        assert (moment.step, code) == ("", 3), output
    else:
        assert (code == 0) == (run.result in CHANGED), output


def converge(arena: Arena) -> None:
    """Wait until the application is up after a boot."""
    wait_until(lambda: arena.site.run("status", "--hosts", arena.host.name)[0] == 0, "the application", 90, pause=1)


@moments_of("outage")
def test_power_cut_of_host_and_workstation(arena: Arena, moment: Moment) -> None:
    """The boot ends the run, and the same command converges, whatever the first one has done."""
    site, host = arena.site, arena.host
    with hit(arena, moment, failures=lambda _: True) as fault:
        host.kill()
        KILL(fault.task)
        end_task(fault.task)
        host.start()
        converge(arena)
        concluded(arena, fault)
        words, wanted = arena.words(moment.operation, fault.before)
        code, output = end_task(start(site, *words))
        assert code == 0, output
        now = agree(site, host)
    assert now.tag == wanted, output
    assert now.history[: len(fault.before.history)] == fault.before.history
