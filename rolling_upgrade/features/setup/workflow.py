"""Setup, its check, and teardown: build each host's resources and apply them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rolling_upgrade import config
from rolling_upgrade.console import prompt
from rolling_upgrade.console.reporter import make_reporter
from rolling_upgrade.engine import history
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.model import Application, Environment, HostResult, HostState
from rolling_upgrade.engine.resource import as_root
from rolling_upgrade.engine.site import client as site
from rolling_upgrade.errors import PROGRAM, ExitCode
from rolling_upgrade.features.access.keys import read_access
from rolling_upgrade.features.access.shell import block_name
from rolling_upgrade.features.apply import ApplySpec, apply_resources
from rolling_upgrade.features.rollback import selection
from rolling_upgrade.features.setup import teardown as removal
from rolling_upgrade.features.setup.resources import resources as desired_resources
from rolling_upgrade.features.watchdog import workflow as watchdog
from rolling_upgrade.ssh.fleet import Fleet, opened

READ_SECONDS = 60


def setup(
    env: str | None,
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    check: bool = False,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> ExitCode:
    """Prepare the hosts for deploys. With `check`, only report: FAILED when something is missing.

    Raises PreflightError for hosts that need manual work first.
    """
    environment = config.load(env, root=root, hosts=hosts)
    access = read_access(environment.access_directory)
    hint = f"{PROGRAM} setup --env {environment.name} --force skips the question"
    force = force or not environment.rollout.confirm
    question = f"Prepare the hosts of {environment.name}?"
    with (
        make_reporter(json=json, secrets=environment.secrets) as reporter,
        opened(environment, as_setup_user=True) as fleet,
    ):
        live = _of_earlier_version(fleet)
        resources = {
            target.name: desired_resources(
                target,
                environment.preparation,
                access=access,
                block=block_name(target.application.name, environment.name),
                watchdog=watchdog.installation(environment, target) if environment.preparation.watchdog else None,
                live=live.get(target.name),
            )
            for target in environment.targets
        }
        spec = ApplySpec("setup", HostResult.PREPARED, "Nothing to do: every host is prepared.", resources)
        ask = partial(prompt.confirm, question, force=force, hint=hint)
        return apply_resources(fleet, spec, reporter, ask, check_only=check, dry_run=dry_run)


def teardown(
    env: str | None,
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    data: bool = False,
    confirm: str = "",
    dry_run: bool = False,
    json: bool = False,
) -> ExitCode:
    """Remove the application from the hosts; `data` removes its data too."""
    environment = config.load(env, root=root, hosts=hosts)
    targets = environment.targets
    resources = {target.name: removal.resources(target.application, target.user, data=data) for target in targets}
    notes = {target.name: (removal.kept_note(target.application, data=data),) for target in targets}
    unchanged = "Nothing to do: the application is not on the hosts."
    spec = ApplySpec("teardown", HostResult.TORN_DOWN, unchanged, resources, notes)
    with (
        make_reporter(json=json, secrets=environment.secrets) as reporter,
        opened(environment, as_setup_user=True) as fleet,
    ):
        ask = lambda: _confirm_name(environment, confirm, data=data)  # noqa: E731
        return apply_resources(fleet, spec, reporter, ask, dry_run=dry_run)


def _confirm_name(environment: Environment, confirmed: str, *, data: bool) -> None:
    name = environment.targets[0].application.name
    kept = "with all its data" if data else "except for its data"
    hint = f"{PROGRAM} teardown --env {environment.name} --confirm {name}"
    question = f"This removes {name} from {environment.name}, {kept}. Type its name:"
    prompt.confirm_by_name(question, name, confirmed, hint=hint)


def _of_earlier_version(fleet: Fleet) -> dict[str, Application]:
    """Return the running application of each host whose Nginx site predates readable site data."""

    def read(host: Host) -> Application | None:
        target = fleet.targets[host.name]
        app, user = target.application, target.setup_user
        records = as_root(site.history_of_earlier_version(app, target.user), user=user)
        recorded = history.parse(host.run(records, timeout_seconds=READ_SECONDS).output)
        release = selection.current(HostState(host.name, releases=recorded))
        if release is None:
            return None
        text = as_root(site.definition_of_release(app, target.user, release.id), user=user)
        answer = host.run(text, timeout_seconds=READ_SECONDS)
        try:
            live = history.parse_definition(answer.output, app.home)
        except ValueError:
            return None
        named = host.run(as_root(site.ports_of_earlier_version(app), user=user), timeout_seconds=READ_SECONDS).output
        return live if site.is_site_of(live, named) else None

    found, _ = fleet.on_reachable(read)
    return {name: live for name, live in found.items() if live is not None}
