"""The steps of a deploy on one host, in the order that keeps the invariant.

At every instant, the color that the flag names is running and has passed its gate: start the idle color → gate → flip
→ verify through Nginx → bake → drain → stop the old color and keep it. A failure undoes in reverse.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence

from rolling_upgrade.engine import nginx, podman, probe, transfer
from rolling_upgrade.engine.model import (
    Application,
    Color,
    Container,
    HostState,
    Image,
    Outcome,
    Release,
    RolloutPolicy,
    Service,
    ServiceRelease,
)
from rolling_upgrade.engine.plan import Change, ServicePlan, Step
from rolling_upgrade.engine.shell import Script, lines, quote, script, sha256, shell_join
from rolling_upgrade.engine.site import client as site
from rolling_upgrade.engine.transfer import Push, full_name
from rolling_upgrade.features.backup import shell as backup
from rolling_upgrade.features.backup.manifest import BackupKind
from rolling_upgrade.features.deploy.spec import DataSteps, DeploySpec
from rolling_upgrade.features.maintenance import plan as page

#: The time limit of a first pull.
PULL_SECONDS = 1800
BACKUP_SECONDS = 900
SITE_SECONDS = 45
CUTOVER_SECONDS = 20


class StepBuilder:
    """Builds the steps of one host's deploy."""

    def __init__(
        self, state: HostState, spec: DeploySpec, rollout: RolloutPolicy, choices: tuple[ServicePlan, ...]
    ) -> None:
        self._state, self._wanted, self._rollout = state, spec, rollout
        self._app = spec.application
        self._data = spec.data or DataSteps()
        self._changed = [choice for choice in choices if choice.change is not Change.KEEP]
        self._colors = {choice.service: choice.color for choice in choices}

    def prepare(self) -> tuple[Step, ...]:
        """Back up and pull. A rollback leaves data alone, and a kept container has its image."""
        images = [self._app.service(choice.service).image for choice in self._changed if not self.is_kept(choice)]
        steps = list(self._data.prepare)
        if self._wanted.action == "deploy":
            body = backup.take(self._app, self._wanted.run_id, BackupKind.DEPLOY)
            steps.append(Step("backup", "back up database and configuration", body, BACKUP_SECONDS))
        pushes = tuple(one for one in self._wanted.pushes if one.image in images)
        if pushes:
            steps.append(push(self._app, self._wanted.run_id, pushes))
        elif images:
            steps.append(self._pull(images))
        return tuple(steps)

    def _pull(self, images: Sequence[Image]) -> Step:
        """Pull the images by digest.

        An upgrade verifies the signatures of images on the host too; a rollback must not need the registry for that.
        """
        key = self._rollout.signed_by
        if not key:
            return Step("pull", "pull images by digest", script(podman.pull(images)), PULL_SECONDS)
        body = pull_signed(images, key, again=self._wanted.action == "deploy")
        return Step("pull", "pull images by digest, signed ones alone", body, PULL_SECONDS)

    def is_kept(self, choice: ServicePlan) -> bool:
        """Whether a rollback finds the container it needs, stopped, in the color that it goes to.

        The container must belong to a good release: the boot program starts no other.
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
        """Everything that changes what visitors get, verified at the end."""
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

    def _site(self) -> Step:
        body = script(site.install(self._app, self._wanted.site_hash))
        undo = script(site.restore(self._app, self._wanted.site_hash))
        return Step(
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
            nginx.end_standby(app, service.name),
            _drain_color(app, service, choice.color) if busy else "",
            podman.revive(app, service, choice.color)
            if kept
            else podman.run(app, service, choice.color, self._wanted.run_id),
            probe.gate(app, service, choice.color),
            podman.give_alias(app, service, choice.color),
        )
        undo = script(
            self._keep_what_serves(choice),
            nginx.end_standby(app, service.name),
            podman.stop(name, service.drain.stop_seconds),
        )
        seconds = service.gate.deadline_seconds + service.drain.stop_seconds + 60
        seconds += service.drain.deadline_seconds if busy else 0
        kept_words = "the kept " if kept else ""
        title = f"{service.name}: start {kept_words}{choice.color.value} and wait for its gate"
        return Step(
            f"{service.name}.start",
            title,
            body,
            seconds,
            undo,
            f"{service.name}: stop {choice.color.value}, keep it",
        )

    def _keep_what_serves(self, choice: ServicePlan) -> str:
        """End an undo before it stops the color that the flag still names, because cutting back failed."""
        if choice.current_color in {None, choice.color}:
            return ""
        named = shell_join("test", "-e", nginx.flag(self._app, choice.service))
        condition = named if choice.color is Color.GREEN else f"! {named}"
        return f"if {condition}; then echo '{choice.service}: {choice.color.value} still serves'; exit 1; fi"

    def _cutover(self, choice: ServicePlan) -> Step:
        app, service = self._app, self._app.service(choice.service)
        back = self._back(choice)
        condition = probe.through_nginx(service, choice.color)
        body = script(
            probe.watch([condition], seconds=0, passes=3, deadline_seconds=CUTOVER_SECONDS - 5),
            nginx.allow_standby(app, service.name) if self._both_serve(choice) else "",
            nginx.flip(app, service.name, choice.color),
            f"if ! watch; then\n{back}\nexit 1\nfi",
        )
        title = f"{service.name}: cut over to {choice.color.value}, verify through Nginx"
        undo_title = f"{service.name}: cut back to {choice.color.other.value}"
        return Step(
            f"{service.name}.cutover",
            title,
            body,
            CUTOVER_SECONDS + 10,
            self._undo_cutover(choice),
            undo_title,
        )

    def _both_serve(self, choice: ServicePlan) -> bool:
        """Whether either color may answer between cutover and drain: the former one runs, and the data stays."""
        before = choice.current_color
        return (
            before not in {None, choice.color} and not self._data.before and self._was_running(choice.service, before)
        )

    def _back(self, choice: ServicePlan) -> str:
        """Flip back to the former color; a service that never served keeps the default of Nginx."""
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
            [probe.candidate_port(service, before)],
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
        """Check the full chain, then bake. On a failure the host itself flips back at once."""
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
        return Step("verify", f"verify the full chain and bake for {bake:g} s", body, bake + 60)

    def _logs(self, choice: ServicePlan) -> str:
        name = podman.container_name(self._app.name, choice.service, choice.color)
        return f"echo {quote(f'last log lines of {name}:')}\n{podman.last_logs(name)}"

    def drain(self, leftovers: list[Container]) -> Step:
        """Stop the colors that no longer serve, once their connections have ended, and keep them.

        The release is good by then: an undo does not reverse this step.
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
        return Step("drain", "drain and stop the old colors, keep them", script(*parts), seconds)

    def release(self) -> Release:
        """The history line of a run that succeeds."""
        app, spec = self._app, self._wanted
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
            spec.run_id,
            spec.time,
            spec.action,
            Outcome.GOOD,
            services,
            spec.owner,
            spec.reason,
            target=spec.target,
            left=spec.left,
            workstation=spec.workstation,
            revision=spec.revision,
        )


def _drain_color(app: Application, service: Service, color: Color) -> str:
    """Wait until the color's port has no established connection, twice, or for the deadline; then stop the color.

    Twice, because a buffered upload reaches its upstream only once its body has arrived. A connection that comes even
    later is refused here and answered by the active color, through the service port.
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
{nginx.end_standby(app, service.name)}
{podman.stop(name, service.drain.stop_seconds)}"""


#: The time limit of a transfer: a first image over a slow line.
PUSH_SECONDS = 3600


def push(app: Application, release: str, pushes: tuple[Push, ...]) -> Step:
    """Fetch the missing layers of each image from the workstation and verify each image's id."""
    said = ", ".join(
        f"{one.service} {one.image.tag or 'latest'} ({one.lacking} of {one.layers} layers, {_size(one.bytes)})"
        for one in pushes
    )
    script = transfer.fetch(pushes, f"{app.home}/journal/{release}/images")
    return Step("push", f"push {said}", script, PUSH_SECONDS, pushes=pushes)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


#: The directory below the user's home with Podman's settings for signatures stored beside images.
LOOKASIDE = ".config/containers/registries.d"


def pull_signed(images: Iterable[Image], key: str, *, again: bool) -> Script:
    """Pull images by digest, each with a signature of the public key (PEM), or fail.

    With `again`, the signatures of images on the host are verified too; otherwise only those of new images.
    """
    unique = tuple(dict.fromkeys(images))
    repositories = dict.fromkeys(full_name(image.repository) for image in unique)
    return script(
        "policy=$(mktemp)\ntrap 'rm -f \"$policy\"' EXIT",
        f'printf %s {quote(json.dumps(_policy(repositories, key)))} > "$policy"',
        f'signatures="$HOME/{LOOKASIDE}"\nmkdir -p "$signatures"',
        *(_keeps_signatures(repository) for repository in repositories),
        lines(_pull(image, again=again) for image in unique),
    )


def _policy(repositories: Iterable[str], key: str) -> dict[str, object]:
    """Accept these repositories alone, signed. Signatures of Cosign name no tag, hence matchRepository."""
    data = base64.b64encode(key.encode()).decode()
    signed = {"type": "sigstoreSigned", "keyData": data, "signedIdentity": {"type": "matchRepository"}}
    return {"default": [{"type": "reject"}], "transports": {"docker": {name: [signed] for name in repositories}}}


def _keeps_signatures(repository: str) -> str:
    """Source: containers-registries.d(5): two files must not name one repository, so its file has one name for all."""
    name = f"rolling-{sha256(repository.encode())[:16]}.yaml"
    content = json.dumps({"docker": {repository: {"use-sigstore-attachments": True}}})
    return f'printf \'%s\\n\' {quote(content)} > "$signatures/{name}.new"\nmv -f "$signatures/{name}.new" "$signatures/{name}"'


def _pull(image: Image, *, again: bool) -> str:
    """Source: podman-pull(1) hides --signature-policy as seldom used; it holds for this one pull."""
    pull = shell_join("podman", "pull", "--quiet") + f' --signature-policy "$policy" {quote(image.pinned)}'
    return pull if again else f"{shell_join('podman', 'image', 'exists', image.pinned)} || {pull}"
