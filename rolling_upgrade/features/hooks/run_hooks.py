"""Runs the hooks of a deploy or a rollback on this workstation, with the facts of the run in their environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from rolling_upgrade.console import identity
from rolling_upgrade.engine import local_command, masking
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.model import Environment, Event, HookCommand, HostResult, Phase, Summary
from rolling_upgrade.engine.plan import Plan, target
from rolling_upgrade.engine.shell import shown_command
from rolling_upgrade.errors import ExitCode, PreflightError, RollingError

BEFORE_CONNECT, BEFORE_DEPLOY, ON_FAILURE = "before_connect", "before_deploy", "on_failure"
#: The hook after a run that succeeded, by action. Other actions have no hooks.
AFTER = {"deploy": "after_deploy", "rollback": "after_rollback"}


class RunHooks:
    """The hooks of one run; none for an action without hooks, and for a dry run, which only names them."""

    def __init__(self, environment: Environment, context: RunContext, action: str, *, dry_run: bool) -> None:
        used = {BEFORE_CONNECT, ON_FAILURE, AFTER.get(action), *([BEFORE_DEPLOY] if action == "deploy" else [])}
        defined = [hook for hook in environment.hooks if action in AFTER and hook.name in used]
        self._hooks = {} if dry_run else {hook.name: hook for hook in defined}
        self._named = tuple(defined) if dry_run else ()
        self._environment, self._context, self._action = environment, context, action
        self._facts = _facts(environment, context, action) if self._hooks else {}
        self._has_ended = False

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Run `on_failure` if the block raises an error, unless the run has ended with a summary or was declined."""
        try:
            yield
        except BaseException as error:
            if not self._has_ended:
                code = error.exit_code if isinstance(error, RollingError) else ExitCode.FAILED
                code = ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else code
                message = error.message if isinstance(error, RollingError) else ""
                for warning in self._after(ON_FAILURE, code, message, ()):
                    self._context.emit(Phase.NOTE, f"warning: {warning}")
            raise

    def before_connect(self) -> None:
        """Run the hook before the first connection. Raises PreflightError if it fails."""
        self._before(BEFORE_CONNECT)

    def before_deploy(self, plans: Sequence[Plan]) -> None:
        """Run the hook before a deploy that changes hosts; note the version. Raises PreflightError if it fails."""
        self._facts["ROLLING_VERSION"] = target(plans)
        if self._action == "deploy":
            self._before(BEFORE_DEPLOY)

    def declined(self) -> None:
        """Note that the operator did not confirm the run: it did not fail."""
        self._has_ended = True

    def ended(self, summary: Summary) -> tuple[str, ...]:
        """Run the hook after the run: on a failure, or after a success that changed a host. Return warnings."""
        self._has_ended = True
        changed = [host.host for host in summary.hosts if host.result in HostResult.changed()]
        code = ExitCode(summary.exit_code)
        if code is ExitCode.DONE and not changed:
            return ()
        name = AFTER.get(self._action, "") if code is ExitCode.DONE else ON_FAILURE
        return self._after(name, code, summary.message, changed)

    def name_all(self) -> None:
        """Name the hooks that the run would execute."""
        for hook in self._named:
            self._context.emit(Phase.NOTE, f"hook {hook.name}, not run in a dry run: {shown_command(hook.command)}")

    def _before(self, name: str) -> None:
        if problem := self._run(name, {}):
            raise PreflightError(
                f"the hook {name} {problem}; nothing was touched.",
                next_step="its output is above; fix the cause and run the same command again",
            )

    def _after(self, name: str, code: ExitCode, message: str, changed: Sequence[str]) -> tuple[str, ...]:
        facts = {
            "ROLLING_RESULT": code.name.lower().replace("_", "-"),
            "ROLLING_EXIT_CODE": str(int(code)),
            "ROLLING_MESSAGE": masking.safe(message, self._environment.secrets),
            "ROLLING_CHANGED_HOSTS": ",".join(changed),
        }
        problem = self._run(name, facts)
        return (f"the hook {name} {problem}; the run itself is not affected",) if problem else ()

    def _run(self, name: str, facts: Mapping[str, str]) -> str:
        """Run a hook if there is one; return '', or how it failed."""
        hook = self._hooks.get(name)
        if hook is None:
            return ""
        self._context.emit(Phase.NOTE, f"hook {name}: {shown_command(hook.command)}")
        seconds = round(self._context.clock() - self._started_at, 1)
        known = {**self._facts, **facts, "ROLLING_HOOK": name, "ROLLING_SECONDS": f"{seconds:g}"}
        try:
            result = local_command.run(
                hook.command,
                lambda line: self._show(name, line),
                directory=hook.folder,
                base=hook_environment(os.environ),
                env={key: value.replace("\0", "") for key, value in known.items()},
                timeout_seconds=hook.timeout_seconds,
            )
        except OSError as error:
            return f"cannot be started: {error.strerror or error}"
        except KeyboardInterrupt:
            if name in {BEFORE_CONNECT, BEFORE_DEPLOY}:
                raise
            return "was interrupted"
        return _problem(hook, result)

    @property
    def _started_at(self) -> float:
        return datetime.fromisoformat(self._facts["ROLLING_STARTED_AT"]).timestamp()

    def _show(self, name: str, line: str) -> None:
        self._context.on_event(Event(self._context.clock(), Phase.OUTPUT, f"hook {name}", step=name, detail=line))


def _problem(hook: HookCommand, result: local_command.CommandResult) -> str:
    if result.timed_out:
        return f"did not end within {hook.timeout_seconds:g} s"
    if result.status < 0:
        return f"was killed by signal {-result.status}"
    return f"failed with exit code {result.status}" if result.status else ""


def hook_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a hook: that of this process without its credentials and without variables of this program."""
    return {
        name: value
        for name, value in environ.items()
        if name not in local_command.SECRET_VARIABLES and not name.startswith("ROLLING_")
    }


def _facts(environment: Environment, context: RunContext, action: str) -> dict[str, str]:
    """The facts that are known before the first connection; times are in UTC."""
    applications = [target.application for target in environment.targets]
    services = dict.fromkeys(service.name for app in applications for service in app.services)
    tags = dict.fromkeys(service.image.tag for app in applications for service in app.services)
    return {
        "ROLLING_COMMAND": action,
        "ROLLING_ENVIRONMENT": environment.name,
        "ROLLING_APPLICATION": applications[0].name if applications else "",
        "ROLLING_HOSTS": ",".join(target.name for target in environment.targets),
        "ROLLING_SERVICES": ",".join(services),
        "ROLLING_VERSION": ", ".join(tag for tag in tags if tag) if action == "deploy" else "",
        "ROLLING_RUN_ID": context.run_id,
        "ROLLING_PERFORMER": identity.name(),
        "ROLLING_REVISION": identity.revision(Path(environment.hooks[0].folder)),
        "ROLLING_STARTED_AT": datetime.fromtimestamp(context.clock(), timezone.utc).isoformat(timespec="seconds"),
    }
