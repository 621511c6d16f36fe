"""Operations: show the plans of all hosts, confirm, roll out, and report; or run one script under each lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from rolling_upgrade import rendering
from rolling_upgrade.console import identity, prompt
from rolling_upgrade.console.reporter import Reporter, make_reporter
from rolling_upgrade.engine import lock_file, locking
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Answer, Host
from rolling_upgrade.engine.locking import held_error
from rolling_upgrade.engine.model import (
    Application,
    Environment,
    HostResult,
    HostState,
    Outcome,
    Release,
    Summary,
    exit_code,
    new_run_id,
)
from rolling_upgrade.engine.plan import Plan, one_release
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.engine.rollout import HostOutcome, HostRun, roll_out, split_batches
from rolling_upgrade.engine.shell import Script, direct
from rolling_upgrade.errors import (
    PROGRAM,
    ConfigError,
    ExitCode,
    HostUnreachable,
    LockHeld,
    PreflightError,
    RollingError,
    StepFailed,
)
from rolling_upgrade.features.hooks.run_hooks import RunHooks
from rolling_upgrade.features.notify.run_notifier import RunNotifier
from rolling_upgrade.ssh.fleet import Fleet, opened


@dataclass(frozen=True)
class OperationSpec:
    """The texts of an operation.

    Attributes:
        action: the name of the operation, such as `deploy`.
        question: asks for confirmation.
        hint: names the command that skips the confirmation.
        done: introduces the hosts in the desired state.
        undone: introduces the hosts whose changes the run undid.
        nothing: the message when no host needs a change.
        undo_command: returns the command that reverts the changed hosts, '' without one.
        name: what the operator has to type instead of yes, because the operation deletes data; '' for yes.
        typed: that name from the command line.
    """

    action: str
    question: str
    hint: str
    done: str
    undone: str
    nothing: str
    undo_command: Callable[[Sequence[HostRun]], str] = lambda _: ""
    name: str = ""
    typed: str = ""


@dataclass(frozen=True)
class Caller:
    """A program that runs an operation: its reporter in place of the output, its consent in place of the question."""

    reporter: Reporter
    confirmed: bool

    def check_consent(self, action: str) -> None:
        """Raise ConfigError without the consent to change hosts."""
        if not self.confirmed:
            message = f"The {action} changes hosts, and is not confirmed; nothing was touched."
            raise ConfigError(message, next_step="pass confirmed=True")


@dataclass(frozen=True)
class Operation:
    """One run over the hosts of an environment.

    Attributes:
        caller: the program that runs it; None for an operator.
        started_at: when the command started, Unix seconds.
        on_finish: receives the summary.
    """

    fleet: Fleet
    reporter: Reporter
    context: RunContext
    hooks: RunHooks
    started_at: float = 0.0
    force: bool = False
    dry_run: bool = False
    on_finish: Callable[[Summary], None] = lambda _: None
    caller: Caller | None = None

    def run(
        self,
        spec: OperationSpec,
        applications: Mapping[str, Application],
        states: Mapping[str, HostState],
        plan: Callable[[HostState], Plan],
        unfit: Callable[[HostRun], Sequence[Finding]],
    ) -> ExitCode:
        """Plan every host, refuse unfit ones, show the plans, ask for confirmation, execute them and report.

        `plan` runs again for a host that has changed since its observation, and the new plan is shown. `unfit` returns
        the problems of a host.
        Raises RollingError if the run fails before it changes a host.
        """
        environment = self.fleet.environment
        host_runs = [
            HostRun(host, applications[host.name], states[host.name], plan(states[host.name]))
            for host in self.fleet.hosts
        ]
        if findings := [finding for host_run in host_runs for finding in unfit(host_run)]:
            # First report a live lock: its run may have caused the findings.
            refuse_live_locks(states, environment)
            refuse(findings, f"a {spec.action}")
        shown = one_release(host_run.plan for host_run in host_runs)
        releasing = next((plan.host for plan in shown if plan.release), "")
        self.reporter.plan(
            shown,
            scripts=self.dry_run,
            batches=split_batches([host_run.name for host_run in host_runs], environment.rollout.batch),
        )
        if self.dry_run:
            self.hooks.name_all()
            return ExitCode.DONE
        refuse_live_locks(states, environment)
        if any(not host_run.plan.empty for host_run in host_runs):
            self._confirm(spec, shown)

        def plan_again(state: HostState) -> Plan:
            new = plan(state)
            self.reporter.plan([new if state.host == releasing else replace(new, release=())])
            return new

        notifier = RunNotifier(environment, self.context, spec.action.partition(".")[0])
        outcomes = roll_out(host_runs, plan_again, environment.rollout, self.context, notifier, rendering.engine)
        summary = self._summary(spec, outcomes, host_runs)
        warnings = (*summary.warnings, *notifier.ended(summary, outcomes), *self.hooks.ended(summary))
        summary = replace(summary, warnings=warnings)
        self.reporter.summary(summary)
        self.on_finish(summary)
        return ExitCode(summary.exit_code)

    def _confirm(self, spec: OperationSpec, plans: Sequence[Plan]) -> None:
        """Ask for confirmation, then run the hook before a deploy."""
        try:
            if self.caller is not None:
                self.caller.check_consent(spec.action)
            elif spec.name:
                prompt.confirm_by_name(spec.question, spec.name, spec.typed, hint=spec.hint)
            else:
                force = self.force or not self.fleet.environment.rollout.confirm
                prompt.confirm(spec.question, force=force, hint=spec.hint)
        except RollingError:
            self.hooks.declined()
            raise
        self.hooks.before_deploy(plans)

    def _summary(self, spec: OperationSpec, outcomes: Sequence[HostOutcome], host_runs: Sequence[HostRun]) -> Summary:
        code = exit_code((outcome.result for outcome in outcomes), interrupted=self.context.cancelled.is_set())
        changed = {outcome.summary.host for outcome in outcomes if outcome.summary.result in HostResult.changed()}
        return Summary(
            action=spec.action,
            environment=self.fleet.environment.name,
            release=self.context.run_id,
            exit_code=code,
            seconds=self.context.clock() - self.started_at,
            hosts=tuple(outcome.summary for outcome in outcomes),
            message=self._message(spec, code, outcomes),
            undo_command=spec.undo_command([run for run in host_runs if run.name in changed]),
            warnings=(*self.fleet.environment.warnings, *_data_warnings(code, outcomes, host_runs)),
        )

    def _message(self, spec: OperationSpec, code: ExitCode, outcomes: Sequence[HostOutcome]) -> str:
        def names(*results: HostResult) -> str:
            return ", ".join(outcome.summary.host for outcome in outcomes if outcome.summary.result in results)

        changed = names(*HostResult.changed())
        if code is ExitCode.DONE:
            results = [outcome.summary.result for outcome in outcomes if outcome.summary.result in HostResult.changed()]
            return f"{changed} {results[0].value}." if results else spec.nothing
        parts = [
            f"{label}: {hosts}."
            for label, hosts in (
                (spec.done, names(*HostResult.changed(), HostResult.UNCHANGED)),
                (spec.undone, names(HostResult.UNDONE)),
                ("Left as it was", names(HostResult.NOT_STARTED)),
                ("Outcome unknown; the active color has passed its gate", names(HostResult.UNKNOWN)),
                ("The undo failed; manual intervention is required", names(HostResult.UNDO_FAILED)),
            )
            if hosts
        ]
        default = f"{PROGRAM} status --env {self.fleet.environment.name}; then run the same command again"
        given = (outcome.error.next_step for outcome in outcomes if outcome.error and outcome.error.next_step)
        return f"{' '.join(parts)} Next: {next(given, default)}"


def _data_warnings(code: ExitCode, outcomes: Sequence[HostOutcome], host_runs: Sequence[HostRun]) -> Iterator[str]:
    """Yield what remains of a release command after a run that failed, and how to restore the data."""
    if code is ExitCode.DONE:
        return
    plans = {host_run.name: host_run for host_run in host_runs}
    for host in (outcome.summary.host for outcome in outcomes if outcome.has_released):
        plan, app = plans[host].plan, plans[host].application
        what = f"{host}: the release command was started, and no undo reverts what it changed in the data."
        if app.has_database:
            restore = f"{PROGRAM} restore {plan.run_id} --env {plan.environment} --hosts {host}"
            yield f"{what} The backup taken before it is {plan.run_id}; to restore it: {restore}"
        else:
            yield f"{what} This run took no backup of a database"


@contextmanager
def started(
    environment: Environment,
    *,
    json: bool,
    started_at: float = 0.0,
    force: bool = False,
    dry_run: bool = False,
    on_finish: Callable[[Summary], None] = lambda _: None,
    action: str = "",
    caller: Caller | None = None,
) -> Iterator[Operation]:
    """Yield a new operation with a reporter and the connected hosts; an `action` with hooks runs those."""
    made = caller.reporter if caller else make_reporter(json=json, secrets=environment.secrets)
    with made as reporter, opened(environment) as fleet:
        context = RunContext(new_run_id(), environment.rollout.lease_seconds, reporter.event)
        hooks = RunHooks(environment, context, action, dry_run=dry_run)
        with hooks.guarded():
            hooks.before_connect()
            yield Operation(fleet, reporter, context, hooks, started_at, force, dry_run, on_finish, caller)


def refuse(findings: Sequence[Finding], action: str) -> None:
    """Raise PreflightError with all findings, if there are any."""
    if findings:
        listed = "\n  ".join(str(finding) for finding in findings)
        raise PreflightError(f"not fit for {action}; nothing was touched.\n  {listed}")


def replaceable_token(state: HostState) -> str:
    """Return the token of the host's lock if its holder was a process of this machine and nothing of it lives, else ''."""
    is_alive = state.fact("executing") == "yes"
    return state.lock.token if state.lock is not None and identity.is_dead(state.lock) and not is_alive else ""


def refuse_live_locks(states: Mapping[str, HostState], environment: Environment) -> None:
    """Raise LockHeld if a live run holds the lock of a host."""
    for name, state in states.items():
        if state.lock is not None and state.lock.expires_at > state.now and not replaceable_token(state):
            raise held_error(name, state.lock, environment.name, state.now)


def hosts_option(changed: Sequence[HostRun], environment: Environment, selected: Sequence[str]) -> str:
    """Return the option that selects the changed hosts; '' for all hosts of the environment.

    `selected` are the hosts that the operator named; `environment` contains no others.
    """
    names = sorted(host_run.name for host_run in changed)
    is_all = not selected and len(names) == len(environment.targets)
    return "" if is_all else f" --hosts {','.join(names)}"


def new_record(context: RunContext, action: str, root: Path) -> Release:
    """Return the history line of a run that succeeds, without services: operator, workstation and revision."""
    return Release(
        context.run_id,
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        action,
        Outcome.GOOD,
        (),
        identity.name(),
        workstation=identity.workstation(),
        revision=identity.revision(root),
    )


def applications(environment: Environment) -> dict[str, Application]:
    """Return the application of each host as the configuration defines it."""
    return {target.name: target.application for target in environment.targets}


def run_under_locks(
    fleet: Fleet,
    states: Mapping[str, HostState],
    script_for: Callable[[HostState], Script],
    *,
    reason: str,
    seconds: float,
    observe: bool = False,
) -> dict[str, Answer | RollingError]:
    """Run a short script without an undo on every host under its lock.

    A locked or unreachable host gets its error as the result.

    Args:
        states: the observed state of each host.
        script_for: returns the script for a host in this state.
        reason: the reason that the lock shows.
        seconds: the time limit of one script.
        observe: observe each host again under its lock, in one more round trip.
    """
    lock, environment = identity.lock(new_run_id(), reason), fleet.environment.name

    def attempt(host: Host) -> Answer | RollingError:
        app, state = fleet.targets[host.name].application, states[host.name]
        dead = replaceable_token(state)
        if observe:
            lease = seconds + locking.LOCK_SECONDS
            step = locking.acquire_step(app, lock, lease_seconds=lease, replaceable_token=dead)
            try:
                state = locking.acquire(host, step, environment=environment).state(app.name, host.name)
            except RollingError as error:
                if not isinstance(error, HostUnreachable) and not locking.is_held_by_other(error):
                    host.run(direct(lock_file.release(app.home, lock.token)), timeout_seconds=30)
                return error
        try:
            return locking.run_under_lock(
                host, app, lock, script_for(state), environment=environment, seconds=seconds, replaceable_token=dead
            )
        except LockHeld as error:
            return error

    return {**fleet.on_each(attempt, finish=True)}


def failure(answer: Answer | RollingError) -> RollingError | None:
    """Return the error of a host on which the script did not run or failed, else None."""
    if isinstance(answer, RollingError):
        return answer
    return None if answer.ok else StepFailed(answer.output_tail)
