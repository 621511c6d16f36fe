"""The steps of a deploy on one host, in the order that keeps the invariant.

At every instant, the color that the flag names is running and has passed its gate: start the idle colors together →
gates → flip and verify through Nginx, one service after the other → bake → drain → stop the old colors and keep them. A
failure undoes in reverse.

An exclusive service is the exception: its old color stops before the new one starts, after all other gates. Meanwhile
the flag names the color that should run, and every program that starts a container stops the other color first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rolling_upgrade.engine import assets, health_gate, image_push, jobs, mount_owner, nginx, podman, untrusted
from rolling_upgrade.engine.image_push import Push
from rolling_upgrade.engine.model import (
    Application,
    Color,
    Container,
    HostState,
    Image,
    Lock,
    Release,
    RolloutPolicy,
    Service,
    ServiceRelease,
    Start,
)
from rolling_upgrade.engine.plan import Change, ServicePlan, Step
from rolling_upgrade.engine.shell import Script, quote, script, shell_join, shown_command
from rolling_upgrade.engine.site import client as site
from rolling_upgrade.features.backup import shell as backup
from rolling_upgrade.features.backup.manifest import BackupKind
from rolling_upgrade.features.deploy import shell
from rolling_upgrade.features.maintenance import plan as page


@dataclass(frozen=True)
class DeploySpec:
    """The desired state of a host: the application with all digests, the site, and the run itself.

    Attributes:
        record: the history line of the run, still without services.
        lock: the lock that the run acquires on the host.
        replaceable_token: the token of a dead run, whose lock this run takes over.
        renew: services that get a new container of the same image and configuration.
        page: the text of the maintenance page, '' for none, None to keep the current one.
        pushes: images that the host fetches from the workstation.
        notes: lines to show in the plan.
        data: the steps that also roll the data back.
        observed: the application for the observation under the lock; default: `application`.
    """

    environment: str
    application: Application
    site: str
    site_hash: str
    record: Release
    lock: Lock
    replaceable_token: str = ""
    force: bool = False
    renew: frozenset[str] = frozenset()
    page: str | None = None
    pushes: tuple[Push, ...] = ()
    notes: tuple[str, ...] = ()
    data: DataSteps | None = None
    observed: Application | None = None


@dataclass(frozen=True)
class DataSteps:
    """The steps that roll the data back with a release. `before` stops all writers.

    Attributes:
        prepare: steps without an effect for visitors.
        before: steps before the steps of the services.
        after: final steps, which are not undone: visitors write to the former data from then on.
        cleanup: shell text that deletes the former data after the record.
        note: the line of the plan about the data.
    """

    prepare: tuple[Step, ...] = ()
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    cleanup: str = ""
    note: str = ""


#: The time limit of a first pull.
PULL_SECONDS = 1800
#: The time limit of a first push over a slow line.
PUSH_SECONDS = 3600
BACKUP_SECONDS = 900
SITE_SECONDS = 45
CUTOVER_SECONDS = 20
#: The time limit of the change of a candidate's alias: two Podman commands, 0.3 s each on an idle host.
ALIAS_SECONDS = 20
#: The time in which a candidate must answer again after the change of its alias.
RECHECK_SECONDS = 10
#: The time in which the former color of an exclusive service must be healthy after an undo has started it again.
FORMER_SECONDS = 60
#: The longest time in which the containers of removed services have to stop.
REMOVED_SECONDS = 900
#: The group of the starts that run at the same time.
START_GROUP = "start"


class StepBuilder:
    """Builds the steps of one host's deploy."""

    def __init__(
        self, state: HostState, spec: DeploySpec, rollout: RolloutPolicy, choices: tuple[ServicePlan, ...]
    ) -> None:
        self._state, self._spec, self._rollout = state, spec, rollout
        self._app = spec.application
        self._action = spec.record.action
        self._data = spec.data or DataSteps()
        #: Each wave starts, then is cut over in its order.
        self._waves = self._split(choice for choice in choices if choice.change is not Change.KEEP)
        #: In the order of their cutovers.
        self._changed = [choice for wave in self._waves for choice in wave]
        self._colors = {choice.service: choice.color for choice in choices}

    def _split(self, changed: Iterable[ServicePlan]) -> list[list[ServicePlan]]:
        """Split the changed services into waves, with the services first that no color serves."""
        waves: list[list[ServicePlan]] = [[]]
        for choice in changed:
            if waves[-1] and self._app.service(choice.service).start is Start.AFTER_PREVIOUS:
                waves.append([])
            waves[-1].append(choice)
        return [sorted(wave, key=lambda choice: choice.change is not Change.FIRST) for wave in waves]

    def prepare(self) -> tuple[Step, ...]:
        """Return the backup and the pull or push. A rollback takes no backup; a kept container needs no pull.

        The pull and the push also create the network, because only new containers can find it missing.
        """
        images = [self._app.service(choice.service).image for choice in self._changed if not self._is_kept(choice)]
        if (releasing := self._releasing()) is not None:
            images.append(releasing.image)
        steps = list(self._data.prepare)
        if self._action == "deploy":
            body = backup.take(self._app, self._spec.record.id, BackupKind.DEPLOY, state=self._state)
            steps.append(Step("backup", "back up database and configuration", body, BACKUP_SECONDS))
        pushes = tuple(push for push in self._spec.pushes if push.image in images)
        if pushes:
            steps.append(self._with_network(push_step(self._app, self._spec.record.id, pushes)))
        elif images:
            steps.append(self._with_network(self._pull(images)))
        return (*steps, *self._assets())

    def _assets(self) -> tuple[Step, ...]:
        """Copy the assets of the new images, and of the running ones, before any host cuts over."""
        services = [service for service in self._app.services if service.assets]
        if not services:
            return ()
        active = [
            (service, self._state.container(service.name, self._state.active_color(service.name)))
            for service in services
        ]
        running = [(service, container.image) for service, container in active if container is not None]
        title = f"copy the assets of {', '.join(service.name for service in services)} out of the images"
        return (Step("assets", title, assets.copy(self._app, running), assets.COPY_SECONDS),)

    def release(self) -> tuple[Step, ...]:
        """Return the release command. The lock of the host and the container's name keep it from running twice."""
        app, command, service = self._app, self._app.release_command, self._releasing()
        if command is None or service is None:
            return ()
        name = podman.one_off_name(app.name, f"{service.name}-release")
        shown = shown_command(command.command)
        return (
            Step(
                "release",
                f"run the release command in a new container of {service.name}: {untrusted.line(shown)}",
                script(
                    podman.ensure_network(app.name),
                    podman.one_off(
                        *(app, service, command.command),
                        name=name,
                        release=self._spec.record.id,
                        entrypoint=command.entrypoint,
                    ),
                ),
                command.timeout_seconds,
                script(podman.remove(name, seconds=service.drain.stop_seconds)),
                "remove the container of the release command",
                shows_output=True,
            ),
        )

    def _releasing(self) -> Service | None:
        """Return the service of the release command, if this run executes it: a deploy that changes a service."""
        command = self._app.release_command
        if command is None or self._action != "deploy" or not self._changed:
            return None
        return next((service for service in self._app.services if service.name == command.service), None)

    def _with_network(self, step: Step) -> Step:
        return replace(step, script=script(podman.ensure_network(self._app.name), step.script))

    def _pull(self, images: Sequence[Image]) -> Step:
        """Pull the images by digest.

        A deploy also verifies the signatures of images on the host; a rollback must not need the registry for that.
        """
        key = self._rollout.signed_by
        if not key:
            return Step("pull", "pull images by digest", script(podman.pull(images)), PULL_SECONDS)
        body = shell.pull_signed(images, key, verify_present=self._action == "deploy")
        return Step("pull", "pull signed images by digest", body, PULL_SECONDS)

    def _is_kept(self, choice: ServicePlan) -> bool:
        """Whether a rollback can start a stopped container instead of creating one.

        The container must belong to a good release: the boot program starts no other.
        """
        container, service = self._state.container(choice.service, choice.color), self._app.service(choice.service)
        return (
            self._action == "rollback"
            and container is not None
            and not container.running
            and container.release in self._good_releases
            and container.image.digest == service.image.digest
            and container.spec == podman.spec_hash(self._app.name, service)
        )

    def steps(self, new_site: bool) -> tuple[Step, ...]:
        """Return the steps that visitors may notice, and their verification."""
        first, *later = self._waves
        return (
            *self._data.before,
            *self._starts(first),
            *([self._site()] if new_site else []),
            *page.turn_on(self._state, self._app, self._spec.page),
            *self._cutovers(first),
            *(step for wave in later for step in (*self._starts(wave), *self._cutovers(wave))),
            *([self._verify()] if self._app.services else []),
            *page.turn_off(self._state, self._app, self._spec.page),
            *self._jobs(),
        )

    def _starts(self, wave: Sequence[ServicePlan]) -> list[Step]:
        """Start the candidates of a wave that may run beside their old colors."""
        return [self._start(choice) for choice in wave if not self._is_handed_over(choice)]

    def _cutovers(self, wave: Sequence[ServicePlan]) -> list[Step]:
        """Hand the exclusive services over, each completely, then cut the others over.

        Handovers wait for the gates of the wave: their old colors stop as late as possible, and after a failed gate they
        have not stopped at all.
        """
        handed_over = [choice for choice in wave if self._is_handed_over(choice)]
        others = [choice for choice in wave if not self._is_handed_over(choice)]
        return [
            *(step for choice in handed_over for step in (self._start(choice), self._cutover(choice))),
            *map(self._cutover, others),
        ]

    def handovers(self) -> tuple[str, ...]:
        """Describe each handover for the plan."""
        notes = []
        for choice in filter(self._is_handed_over, self._changed):
            service = self._app.service(choice.service)
            meanwhile = "its work pauses" if service.is_worker else "visitors get errors"
            old, new = choice.color.other.value, choice.color.value
            notes.append(f"{service.name} is exclusive: {old} stops before {new} starts; {meanwhile} in between")
        return tuple(notes)

    def _is_handed_over(self, choice: ServicePlan) -> bool:
        """Whether a container of the service has to stop before the candidate may start."""
        service = self._app.service(choice.service)
        return service.is_exclusive and any(self._was_running(service.name, color) for color in Color)

    def _jobs(self) -> Iterable[Step]:
        """Change the timers of the jobs, after everything that can fail. Steps for the data have stopped them."""
        app, run_id = self._app, self._spec.record.id
        if not jobs.differ(self._state, app) and not (self._spec.data and app.jobs):
            return
        names = ", ".join(job.name for job in app.jobs)
        title = f"schedule the jobs {names}" if names else "remove the timers of the jobs"
        undo = jobs.restore(app, run_id)
        if self._spec.data:
            # No job may run until the former data is back; the undo of the step that stopped the writers starts the timers.
            undo = script("(", undo, ")", jobs.pause(app))
        yield Step("jobs", title, jobs.install(app, run_id), jobs.INSTALL_SECONDS, undo, "bring back the former jobs")

    def _site(self) -> Step:
        body = script(site.install(self._app, self._spec.site_hash))
        undo = script(site.restore(self._app, self._spec.site_hash))
        title, undo_title = "install and verify the Nginx site", "restore the previous site"
        return Step("site", title, body, SITE_SECONDS, undo, undo_title)

    def _start(self, choice: ServicePlan) -> Step:
        app, service = self._app, self._app.service(choice.service)
        name = podman.container_name(app.name, service.name, choice.color)
        busy = self._was_running(service.name, choice.color)
        kept, handed_over = self._is_kept(choice), self._is_handed_over(choice)
        former = self._start_former(choice)
        no_standby = "" if service.is_worker else nginx.end_standby(app, service.name)
        body = script(
            "" if kept else mount_owner.check_writable(service),
            no_standby,
            shell.drain(app, [(service, choice.color)]) if busy else "",
            podman.stop_other(app, service, choice.color),
            podman.revive(app, service, choice.color)
            if kept
            else podman.run(app, service, choice.color, self._spec.record.id),
            health_gate.gate(app, service, choice.color, self._process_file(choice), self._address_file(choice)),
            "" if self._serves(choice) else self._alias(choice),
        )
        undo = script(
            self._refuse_if_serving(choice),
            no_standby,
            podman.stop_other(app, service, choice.color.other)
            or podman.stop(name, seconds=service.drain.stop_seconds),
            former,
        )
        seconds = service.gate.deadline_seconds + 2 * service.drain.stop_seconds + 60
        seconds += service.drain.deadline_seconds if busy else 0
        start = f"start {'the kept ' if kept else ''}{choice.color.value}"
        before = choice.color.other.value
        title = f"{service.name}: {f'stop {before}, ' if handed_over else ''}{start} and wait for its gate"
        undo_title = f"{service.name}: stop {choice.color.value}, {f'start {before}' if former else 'keep it'}"
        group = START_GROUP if self._serves(choice) and not handed_over else ""
        return Step(f"{service.name}.start", title, body, seconds, undo, undo_title, group=group)

    def _start_former(self, choice: ServicePlan) -> str:
        """Start the former color of an exclusive service again, when the undo has stopped the candidate.

        A former color that did not run before, such as one that a killed run stopped, is started if its release was
        good. If data is rolled back, the undo of that starts it, after the data.
        """
        app, service, before = self._app, self._app.service(choice.service), choice.current_color
        if not service.is_exclusive or self._data.before or before in {None, choice.color}:
            return ""
        name = podman.container_name(app.name, service.name, before)
        if self._was_running(service.name, before):
            healthy = health_gate.wait_for_restart(app, [(service, before)], deadline_seconds=FORMER_SECONDS)
            return f"{podman.start(name)}\n{healthy}"
        container = self._state.container(service.name, before)
        if container is None or container.release not in self._good_releases:
            return ""
        return f"{podman.start(name)} || echo {quote(f'{name} could not be started')}"

    @property
    def _good_releases(self) -> set[str]:
        return {release.id for release in self._state.releases if release.good}

    def _serves(self, choice: ServicePlan) -> bool:
        """Whether a color of the service still serves while the candidate starts.

        If none serves, the candidate starts alone and gets the alias after its gate, so that the candidates of the
        services after it find the service by its name.
        """
        return choice.change is Change.REPLACE and not self._data.before

    def _refuse_if_serving(self, choice: ServicePlan) -> str:
        """Make the undo fail before it stops a color that the flag still names, because the flip back failed."""
        if choice.current_color in {None, choice.color}:
            return ""
        named = shell_join("test", "-e", nginx.flag(self._app, choice.service))
        condition = named if choice.color is Color.GREEN else f"! {named}"
        return f"if {condition}; then echo '{choice.service}: {choice.color.value} still serves'; exit 1; fi"

    def _cutover(self, choice: ServicePlan) -> Step:
        app, service = self._app, self._app.service(choice.service)
        flip = nginx.flip(app, service.name, choice.color)
        if not service.is_worker:
            condition = health_gate.through_nginx(app, service, choice.color)
            flip = "\n".join(
                (
                    health_gate.watch([condition], seconds=0, passes=1, deadline_seconds=CUTOVER_SECONDS - 5),
                    *([nginx.allow_standby(app, service.name)] if self._both_serve(choice) else []),
                    flip,
                    f"if ! watch; then\n{self._flip_back(choice)}\nexit 1\nfi",
                )
            )
        alias = self._alias(choice) if self._serves(choice) else ""
        body = script(alias, self._recheck(choice), flip)
        title = (
            f"{service.name}: cut over to {choice.color.value}{'' if service.is_worker else ', verify through Nginx'}"
        )
        undo_title = f"{service.name}: cut back to {choice.color.other.value}"
        undo = self._undo_cutover(choice)
        recheck = RECHECK_SECONDS + service.gate.ready_timeout_seconds
        seconds = ALIAS_SECONDS + recheck + CUTOVER_SECONDS + 10
        return Step(f"{service.name}.cutover", title, body, seconds, undo, undo_title)

    def _recheck(self, choice: ServicePlan) -> str:
        """Fail before the flip if the candidate failed after its gate, while the others started."""
        app, service = self._app, self._app.service(choice.service)
        name = podman.container_name(app.name, service.name, choice.color)
        conditions = [health_gate.not_restarted([name]), health_gate.healthy(app, service, choice.color)]
        recheck = health_gate.watch(conditions, seconds=0, passes=1, deadline_seconds=RECHECK_SECONDS, tolerance=100)
        recall = health_gate.recall([self._process_file(choice)])
        return f"{recall}\n{recheck}\nif ! watch; then\n{podman.print_last_logs([name])}\nexit 1\nfi"

    def _process_file(self, choice: ServicePlan) -> str:
        """Return the file in the journal with the process of a candidate that has passed its gate."""
        return f"{self._app.home}/journal/{self._spec.record.id}/{choice.service}.process"

    def _address_file(self, choice: ServicePlan) -> str:
        """Return the file in the journal with the address of a candidate."""
        return f"{self._app.home}/journal/{self._spec.record.id}/{choice.service}.address"

    def _alias(self, choice: ServicePlan) -> str:
        service = self._app.service(choice.service)
        return podman.give_alias(self._app, service, choice.color, self._address_file(choice))

    def _both_serve(self, choice: ServicePlan) -> bool:
        """Whether both colors may answer between cutover and drain: the former one runs, and no data is rolled back."""
        before = choice.current_color
        return (
            before not in {None, choice.color}
            and not self._data.before
            and not self._app.service(choice.service).is_exclusive
            and self._was_running(choice.service, before)
        )

    def _flip_back(self, choice: ServicePlan) -> str:
        """Flip back to the former color; without one, keep the flag as it is."""
        if choice.current_color is None:
            return "echo 'no color was active before: nothing to restore'"
        return nginx.flip(self._app, choice.service, choice.current_color)

    def _undo_cutover(self, choice: ServicePlan) -> Script:
        before = choice.current_color
        if before is None:
            return script(self._flip_back(choice))
        app, service = self._app, self._app.service(choice.service)
        if self._data.before or service.is_exclusive or not self._was_running(choice.service, before):
            # The undo of an exclusive start follows, and starts the former color.
            return script(nginx.flip(app, service.name, before))
        undo = (
            podman.start(podman.container_name(app.name, service.name, before)),
            health_gate.wait_for_restart(app, [(service, before)], deadline_seconds=CUTOVER_SECONDS),
            nginx.flip(app, service.name, before),
        )
        if service.is_worker:
            return script(*undo)
        serves = health_gate.watch(
            [health_gate.through_nginx(app, service, before)], seconds=0, passes=1, deadline_seconds=CUTOVER_SECONDS
        )
        return script(*undo, serves, "watch")

    def _was_running(self, service: str, color: Color) -> bool:
        container = self._state.container(service, color)
        return container is not None and container.running

    def _verify(self) -> Step:
        """Check the full chain and bake; on a failure the host itself flips back at once."""
        app = self._app
        conditions = [
            health_gate.through_nginx(app, service, self._colors[service.name]) for service in app.http_services
        ]
        changed = [podman.container_name(app.name, choice.service, choice.color) for choice in self._changed]
        if changed:
            conditions.append(health_gate.not_restarted(changed))
        if app.full_chain:
            conditions.append(health_gate.answers(app, app.full_chain))
        if app.has_site:
            conditions.append(health_gate.public(app))
        bake = self._rollout.bake_seconds
        flips = "\n".join(self._flip_back(choice) for choice in reversed(self._changed))
        logs = podman.print_last_logs(
            podman.container_name(app.name, choice.service, choice.color) for choice in self._changed
        )
        body = script(
            health_gate.recall([self._process_file(choice) for choice in self._changed]) if changed else "",
            health_gate.watch(conditions, seconds=bake, passes=3, deadline_seconds=bake + 15),
            f"if ! watch; then\n{flips or ':'}\n{logs}\nexit 1\nfi",
        )
        return Step("verify", f"verify the full chain and bake for {bake:g} s", body, bake + 60)

    def drain(self, leftovers: list[Container]) -> Step:
        """Stop each color that no longer serves, once its connections have ended, and keep it.

        This step has no undo: the release has passed its bake.
        """
        app = self._app
        ended = {(choice.service, choice.color.other) for choice in self._changed}
        ended |= {(container.service, container.color) for container in leftovers}
        kept = {service.name: service for service in app.services}
        removed = [podman.container_name(app.name, name, color) for name, color in sorted(ended) if name not in kept]
        old = [(kept[name], color) for name, color in sorted(ended) if name in kept and color is not self._colors[name]]
        seconds = 30 + sum(service.drain.deadline_seconds + service.drain.stop_seconds for service, _ in old)
        # Nothing tells how long the removed ones may take, such as a worker that moved to another host: Podman knows.
        seconds += REMOVED_SECONDS if removed else 0
        body = script(shell.drain(app, old), podman.stop(*removed, seconds=None) if removed else "")
        return Step("drain", "drain and stop the old colors, keep them", body, seconds)


def release(spec: DeploySpec, choices: Sequence[ServicePlan]) -> Release:
    """Return the history line of a successful run."""
    colors = {choice.service: choice.color for choice in choices}
    services = tuple(
        (
            service.name,
            ServiceRelease(
                service.image.reference,
                service.image.digest,
                colors[service.name],
                podman.spec_hash(spec.application.name, service),
                service.image.revision,
            ),
        )
        for service in spec.application.services
    )
    return replace(spec.record, services=services)


def push_step(app: Application, run_id: str, pushes: tuple[Push, ...]) -> Step:
    """Fetch the missing layers of each image from the workstation and verify each image's id."""
    images = ", ".join(
        f"{push.service} {push.image.tag or 'latest'} ({push.lacking} of {push.layers} layers, {_size(push.bytes)})"
        for push in pushes
    )
    body = image_push.fetch(pushes, f"{app.home}/journal/{run_id}/images")
    return Step("push", f"push {images}", body, PUSH_SECONDS, pushes=pushes)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
