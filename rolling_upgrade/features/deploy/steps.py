"""The steps of a deploy on one host, in the order that keeps the invariant. Pure.

The color that the flag names runs and has passed its gate, at every instant: start the idle color → gate → flip →
verify through Nginx → bake → drain → stop the old color and keep it. A failure undoes in reverse.
"""

from __future__ import annotations

from collections.abc import Sequence

from fabfile.commands import backup, nginx, podman, probe, signing
from fabfile.commands.shell import Script, quote, script, words
from fabfile.model import (
    Application,
    BackupKind,
    Color,
    Container,
    HostState,
    Image,
    Outcome,
    Release,
    Rollout,
    Service,
    ServiceRelease,
)
from fabfile.plans import page
from fabfile.plans.push import push
from fabfile.plans.step import Change, ServicePlan, Step
from fabfile.plans.wanted import DataSteps, Wanted

#: How long the first pull of an image may take.
PULL_SECONDS = 1800
BACKUP_SECONDS = 900
SITE_SECONDS = 45
CUTOVER_SECONDS = 20


class StepBuilder:
    """Makes the steps of one host's deploy."""

    def __init__(self, state: HostState, wanted: Wanted, rollout: Rollout, choices: tuple[ServicePlan, ...]) -> None:
        self._state, self._wanted, self._rollout = state, wanted, rollout
        self._app = wanted.application
        self._data = wanted.data or DataSteps()
        self._changed = [choice for choice in choices if choice.change is not Change.KEEP]
        self._colors = {choice.service: choice.color for choice in choices}

    def prepare(self) -> tuple[Step, ...]:
        """Backup and pull: nothing a visitor sees. A rollback leaves data alone, and a kept container has its image."""
        images = [self._app.service(choice.service).image for choice in self._changed if not self.is_kept(choice)]
        steps = list(self._data.prepare)
        if self._wanted.action == "deploy":
            body = backup.take(self._app, self._wanted.release, BackupKind.DEPLOY)
            steps.append(self._step("backup", "back up database and configuration", body, BACKUP_SECONDS))
        pushes = tuple(one for one in self._wanted.pushes if one.image in images)
        if pushes:
            steps.append(push(self._app, self._wanted.release, pushes))
        elif images:
            steps.append(self._pull(images))
        return tuple(steps)

    def _pull(self, images: Sequence[Image]) -> Step:
        """An upgrade asks for the signature of what is there as well; the way back needs no registry for that."""
        key = self._rollout.signed_by
        if not key:
            return self._step("pull", "pull images by digest", script(podman.pull(images)), PULL_SECONDS)
        body = signing.pull_signed(images, key, again=self._wanted.action == "deploy")
        return self._step("pull", "pull images by digest, signed ones alone", body, PULL_SECONDS)

    def is_kept(self, choice: ServicePlan) -> bool:
        """Whether a rollback finds the very container it wants, stopped, in the color that it goes to.

        It must be a good release's: the boot program starts none that was undone.
        """
        kept, service = self._state.container(choice.service, choice.color), self._app.service(choice.service)
        return (
            self._wanted.action == "rollback"
            and kept is not None
            and not kept.running
            and kept.release in {release.id for release in self._state.releases if release.good}
            and kept.image.digest == service.image.digest
            and kept.spec == podman.spec_hash(self._app.name, service)
        )

    def steps(self, new_site: bool) -> tuple[Step, ...]:
        """All that changes what visitors get, proved at the end."""
        first = [choice for choice in self._changed if choice.change is Change.FIRST]
        others = [choice for choice in self._changed if choice.change is Change.REPLACE]
        site = [self._site()] if new_site else []
        rolled = [step for choice in others for step in (self._start(choice), self._cutover(choice))]
        return (
            *self._data.before,
            *(self._start(choice) for choice in first),
            *site,
            *page.put_up(self._state, self._app, self._wanted.page),
            *(self._cutover(choice) for choice in first),
            *rolled,
            self._verify(),
            *page.take_down(self._state, self._app, self._wanted.page),
            *self._data.after,
        )

    def _step(
        self,
        id: str,
        title: str,
        body: Script,
        seconds: float,
        undo: Script | None = None,
        undo_title: str = "",
    ) -> Step:
        return Step(id, title, body, seconds, undo, undo_title)

    def _site(self) -> Step:
        body = nginx.install_site(self._app, self._wanted.site)
        undo = script(nginx.restore_site(self._app, self._wanted.site_hash))
        return self._step(
            "site",
            "install the Nginx site and prove it live",
            body,
            SITE_SECONDS,
            undo,
            "put the old site back",
        )

    def _start(self, choice: ServicePlan) -> Step:
        app, service = self._app, self._app.service(choice.service)
        name = podman.container_name(app.name, service.name, choice.color)
        busy = self._was_running(service.name, choice.color)
        kept = self.is_kept(choice)
        body = script(
            _drain_color(app, service, choice.color) if busy else "",
            podman.revive(app, service, choice.color)
            if kept
            else podman.run(app, service, choice.color, self._wanted.release),
            probe.gate(app, service, choice.color),
            podman.give_alias(app, service, choice.color),
        )
        undo = script(self._keep_what_serves(choice), podman.stop(name, service.drain.stop_seconds))
        seconds = service.gate.deadline_seconds + service.drain.stop_seconds + 60
        seconds += service.drain.deadline_seconds if busy else 0
        kept_words = "the kept " if kept else ""
        title = f"{service.name}: start {kept_words}{choice.color.value} and wait for its gate"
        return self._step(
            f"{service.name}.start",
            title,
            body,
            seconds,
            undo,
            f"{service.name}: stop {choice.color.value}, keep it",
        )

    def _keep_what_serves(self, choice: ServicePlan) -> str:
        """End an undo before it stops the color that the flag still names: cutting back failed, so it serves on."""
        if choice.current_color in {None, choice.color}:
            return ""
        named = words("test", "-e", nginx.flag(self._app, choice.service))
        condition = named if choice.color is Color.GREEN else f"! {named}"
        return f"if {condition}; then echo '{choice.service}: {choice.color.value} still serves'; exit 1; fi"

    def _cutover(self, choice: ServicePlan) -> Step:
        app, service = self._app, self._app.service(choice.service)
        back = self._back(choice)
        condition = probe.through_nginx(service, choice.color)
        body = script(
            probe.watch([condition], seconds=0, passes=3, deadline_seconds=CUTOVER_SECONDS - 5),
            nginx.flip(app, service.name, choice.color),
            f"if ! watch; then\n{back}\nexit 1\nfi",
        )
        title = f"{service.name}: cut over to {choice.color.value}, verify through Nginx"
        undo_title = f"{service.name}: cut back to {choice.color.other.value}"
        return self._step(
            f"{service.name}.cutover",
            title,
            body,
            CUTOVER_SECONDS + 10,
            self._undo_cutover(choice),
            undo_title,
        )

    def _back(self, choice: ServicePlan) -> str:
        """Flip back to what served before; a service that never served keeps its flag where Nginx's default is."""
        if choice.current_color is None:
            return "echo 'nothing served before: there is nothing to cut back to'"
        return nginx.flip(self._app, choice.service, choice.current_color)

    def _undo_cutover(self, choice: ServicePlan) -> Script:
        before = choice.current_color
        if before is None:
            return script(self._back(choice))
        app, service = self._app, self._app.service(choice.service)
        if self._data.before or not self._was_running(choice.service, before):
            return script(nginx.flip(app, service.name, before))
        answers = probe.watch(
            [probe.own_port(service, before)],
            seconds=0,
            passes=1,
            deadline_seconds=CUTOVER_SECONDS,
            tolerance=probe.PATIENT,
        )
        serves = probe.watch(
            [probe.through_nginx(service, before)], seconds=0, passes=1, deadline_seconds=CUTOVER_SECONDS
        )
        return script(
            podman.start(podman.container_name(app.name, service.name, before)),
            answers,
            "watch",
            nginx.flip(app, service.name, before),
            serves,
            "watch",
        )

    def _was_running(self, service: str, color: Color) -> bool:
        container = self._state.container(service, color)
        return container is not None and container.running

    def _verify(self) -> Step:
        """The full chain first, then the bake: on a failure the host itself flips back at once."""
        app = self._app
        conditions = [probe.through_nginx(service, self._colors[service.name]) for service in app.services]
        conditions += [probe.unrestarted(app, app.service(choice.service), choice.color) for choice in self._changed]
        if app.full_chain:
            conditions.append(probe.answered(app, app.full_chain))
        conditions.append(probe.public(app))
        bake = self._rollout.bake_seconds
        backs = "\n".join(self._back(choice) for choice in reversed(self._changed))
        logs = "\n".join(self._logs(choice) for choice in self._changed)
        body = script(
            probe.watch(conditions, seconds=bake, passes=3, deadline_seconds=bake + 15),
            f"if ! watch; then\n{backs or ':'}\n{logs or ':'}\nexit 1\nfi",
        )
        return self._step("verify", f"verify the full chain and bake for {bake:g} s", body, bake + 60)

    def _logs(self, choice: ServicePlan) -> str:
        name = podman.container_name(self._app.name, choice.service, choice.color)
        return f"echo {quote(f'last log lines of {name}:')}\n{podman.last_logs(name)}"

    def drain(self, leftovers: list[Container]) -> Step:
        """Stop the colors that no longer serve once nothing is connected to them; they are kept.

        The release is good by then: this step is no part of what an undo reverses.
        """
        app = self._app
        ended = {(choice.service, choice.color.other) for choice in self._changed}
        ended |= {(container.service, container.color) for container in leftovers}
        parts: list[str] = []
        seconds = 30.0
        for name, color in sorted(ended):
            if name not in {service.name for service in app.services}:
                parts.append(podman.stop(podman.container_name(app.name, name, color), 10))
                continue
            service = app.service(name)
            if color is self._colors[name]:
                continue
            parts.append(_drain_color(app, service, color))
            seconds += service.drain.deadline_seconds + service.drain.stop_seconds
        return self._step("drain", "drain and stop the old colors, keep them", script(*parts), seconds)

    def release(self) -> Release:
        """The history's line if all goes well."""
        app, wanted = self._app, self._wanted
        services = tuple(
            (
                service.name,
                ServiceRelease(
                    service.image.reference,
                    service.image.digest,
                    self._colors[service.name],
                    podman.spec_hash(app.name, service),
                    service.image.revision,
                ),
            )
            for service in app.services
        )
        return Release(
            wanted.release,
            wanted.time,
            wanted.action,
            Outcome.GOOD,
            services,
            wanted.owner,
            wanted.reason,
            target=wanted.target,
            left=wanted.left,
            workstation=wanted.workstation,
            revision=wanted.revision,
        )


def _drain_color(app: Application, service: Service, color: Color) -> str:
    """Wait until the color's port shows no established connection, twice, or the deadline; then stop it.

    Twice, because a buffered upload reaches its upstream only once its body has arrived.
    """
    name = podman.container_name(app.name, service.name, color)
    return f"""\
began=$(date +%s) quiet=0
while podman container exists {quote(name)} && [ "$quiet" -lt 2 ]; do
  connected=$(ss -Htn state established '( sport = :{service.port(color)} )')
  if [ -z "$connected" ]; then quiet=$((quiet + 1)); else quiet=0; fi
  if [ $(($(date +%s) - began)) -ge {round(service.drain.deadline_seconds)} ]; then
    echo "{service.name}: {color.value} still had connections after {round(service.drain.deadline_seconds)} s"
    break
  fi
  sleep 1
done
{podman.stop(name, service.drain.stop_seconds)}"""
