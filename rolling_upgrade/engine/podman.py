"""Podman commands: names, labels, the candidate's `run`, one-off containers, pull, stop and image retention.

Containers are rootless and belong to the deploy user. Only the labels identify a container.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from rolling_upgrade.engine import progress, untrusted
from rolling_upgrade.engine.image_push import full_name
from rolling_upgrade.engine.model import Application, Color, Confinement, ContainerOptions, Image, SecretFile, Service
from rolling_upgrade.engine.paths import refuse_link
from rolling_upgrade.engine.prune_entry import Mode, size_of
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.engine.shell import Script, quote, script, shell_join, write_file
from rolling_upgrade.engine.untrusted import Malformed

LABEL = "rolling"
#: Directories beside a container's env file: values of several lines, and secrets that the container reads from files.
MULTILINE, SECRETS = "multiline", "secrets"
#: The label of one-off containers, with the name of their service; they have no `service` and no `color`.
ONE_OFF = "one-off"
_REVISION = "org.opencontainers.image.revision"
_RESOLVED = f'{{{{.Digest}}}} {{{{index .Labels "{_REVISION}"}}}}'
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST_REVISION = 200
_PLAIN_REVISION = re.compile(r"[A-Za-z0-9<>._:+/ -]*")

#: The restart policies passed to Podman. `always` becomes `unless-stopped`: both restart after
#: every crash, but at boot podman-restart.service starts each `always` container, the stopped old color too.
#: Source: podman-restart.service(1), `podman start --all --filter restart-policy=always`.
_RESTART_POLICY = {"always": "unless-stopped"}

#: The limits for reading another application's history, in bytes and seconds: some thousand releases.
_HISTORY_BYTES = 4 << 20
_HISTORY_SECONDS = 5


def container_name(app: str, service: str, color: Color) -> str:
    """The container name of a color of a service."""
    return f"{app}-{service}-{color.value}"


def network_name(app: str) -> str:
    """The application's bridge network."""
    return f"{app}-network"


def volume_name(app: str, name: str) -> str:
    """The name of one of the application's volumes on the host."""
    return f"{app}-{name}"


def volume_names(app: Application) -> tuple[str, ...]:
    """The volumes that the services and accessories of this host name, without the application's prefix."""
    every = (*(service.options for service in app.services), *(accessory.options for accessory in app.accessories))
    return tuple(dict.fromkeys(volume.name for options in every for volume in options.volumes))


def accessory_container(app: str, name: str) -> str:
    """The name of an accessory's container."""
    return f"{app}-accessory-{name}"


def spec_hash(app: str, service: Service) -> str:
    """A hash of everything that defines a container except its image: equal hashes need no new container.

    The hash appears in labels, history and reports and covers the environment. It is slow to compute, so that short
    secrets cannot be guessed from it.
    """
    if service.recorded:
        return service.recorded.spec
    spec: dict[str, object] = {
        "network": network_name(app),
        "alias": service.alias,
        "port": [service.container_port, service.service_port],
        "mounts": [[mount.source, mount.target, mount.read_only] for mount in service.mounts],
        "env": sorted(service.env),
        "memory": service.memory_bytes,
        "cpus": service.cpus,
        "restart": service.restart_policy,
        "stop": service.drain.stop_seconds,
    }
    if service.confinement:
        spec["confinement"] = to_plain(service.confinement)
    if options := options_in_use(service.options):
        spec["options"] = options
    if service.secret_files:
        spec["secrets"] = to_plain(service.secret_files, secrets=True)
    if service.command:
        spec["command"] = service.command
    if service.entrypoint is not None:
        spec["entrypoint"] = service.entrypoint
    return slow_hash(json.dumps(spec, sort_keys=True), f"{app}/{service.name}")


def options_in_use(options: ContainerOptions) -> dict[str, object]:
    """The options that differ from their defaults: an option that is added later changes no hash."""
    unused = to_plain(ContainerOptions())
    return {name: value for name, value in to_plain(options).items() if value != unused[name]}


@lru_cache(maxsize=1024)
def slow_hash(text: str, salt: str) -> str:
    """16 hexadecimal digits by scrypt, in about 20 ms and 8 MiB. Source: RFC 7914."""
    import hashlib

    return hashlib.scrypt(text.encode(), salt=salt.encode(), n=2**13, r=8, p=1, dklen=8).hex()


def config_directory(app: Application, service: Service) -> str:
    """The directory with the environment of a service's container on the host, one per distinct configuration."""
    return f"{app.home}/config/{service.name}-{spec_hash(app.name, service)}"


def labels(app: Application, service: Service, color: Color, release: str) -> dict[str, str]:
    """The labels that identify a container."""
    return {
        "app": app.name,
        "environment": app.environment,
        "service": service.name,
        "color": color.value,
        "release": release,
        "image": service.image.reference,
        "digest": service.image.digest,
        "spec": spec_hash(app.name, service),
        "port": str(service.service_port),
    }


def run(app: Application, service: Service, color: Color, release: str) -> Script:
    """Start the candidate of a service in an idle color, replacing a stopped or left-over container of that name.

    The network must exist; see `ensure_network`. The environment is passed in a 0600 file, never in argv. The candidate gets no service alias; see `give_alias`. An exclusive service gets it at once: its other color is stopped.
    """
    name = container_name(app.name, service.name, color)
    directory = config_directory(app, service)
    arguments = ["podman", "run", "--detach", "--quiet", "--replace", "--name", name, "--pull=never"]
    arguments += ["--network", network_name(app.name)]
    arguments += [word for alias in _first_aliases(service, color) for word in ("--network-alias", alias)]
    if not service.is_worker:
        arguments += ["--publish", f"127.0.0.1:{service.port(color)}:{service.container_port}"]
    arguments += ["--restart", _RESTART_POLICY.get(service.restart_policy, service.restart_policy)]
    arguments += entrypoint_option(service.entrypoint)
    arguments += _options(app, service)
    if service.confinement:
        arguments += log_options(service.confinement)
    arguments += label_options(labels(app, service, color, release))
    return script(
        _environment(service, directory),
        *(refuse_link(mount.source) for mount in service.mounts),
        ensure_volumes(app, service.options),
        _with_environment(service, directory, arguments, [service.image.pinned, *service.command]) + " >/dev/null",
    )


def option_arguments(app: str, options: ContainerOptions) -> list[str]:
    """The arguments of `podman run` for these options; their volumes must exist, see `ensure_volumes`.

    Source: podman-run(1): with `--read-only`, /run, /tmp and /var/tmp are writable tmpfs.
    """
    arguments = ["--user", options.user] if options.user else []
    for volume in options.volumes:
        place = f"{volume_name(app, volume.name)}:{volume.target}"
        arguments += ["--volume", f"{place}{':ro' if volume.read_only else ''}"]
    if options.shm_bytes:
        arguments += ["--shm-size", f"{options.shm_bytes}b"]
    if options.read_only:
        arguments.append("--read-only")
    if options.init:
        arguments.append("--init")
    for option, values in (
        ("--tmpfs", options.tmpfs),
        ("--device", options.devices),
        ("--ulimit", options.ulimits),
        ("--add-host", options.add_host),
        ("--label", tuple(f"{key}={value}" for key, value in options.labels)),
    ):
        arguments += [word for value in values for word in (option, value)]
    return arguments


def ensure_volumes(app: Application, options: ContainerOptions) -> str:
    """Create the missing volumes of a container, and refuse a volume of another application.

    A volume without labels was created by hand, for example with imported data. Several containers that start together may share a volume: one of them creates it.
    """
    commands = []
    for name in dict.fromkeys(volume.name for volume in options.volumes):
        volume = volume_name(app.name, name)
        marks = {"app": app.name, "environment": app.environment, "volume": name}
        exists = shell_join("podman", "volume", "exists", volume)
        create = shell_join("podman", "volume", "create", *label_options(marks), volume)
        owner = shell_join("podman", "volume", "inspect", "--format", f'{{{{index .Labels "{LABEL}.app"}}}}', volume)
        refusal = f"the volume {volume} belongs to another application"
        commands.append(
            f"{exists} || why=$({create} 2>&1) || {exists} || {{ printf '%s\\n' \"$why\"; exit 1; }}\n"
            f'case "$({owner})" in {quote(app.name)} | "") ;; *) echo {quote(refusal)}; exit 1 ;; esac'
        )
    return "\n".join(commands)


def one_off_name(app: str, purpose: str) -> str:
    """The name of a one-off container. `purpose` must not end like a color, such as `web-release`."""
    return f"{app}-{purpose}"


def one_off(
    app: Application,
    service: Service,
    command: Sequence[str],
    *,
    name: str,
    release: str = "",
    entrypoint: Sequence[str] | None = None,
    options: Sequence[str] = (),
    replaces_shell: bool = False,
) -> Script:
    """Run a command in a new container of a service, attached to this script, and remove the container when it ends.

    The container has the environment, mounts, limits and network of the service, but no port, no alias and no restarts.
    It replaces a container of that name: the same one-off never runs twice at the same time. The status is that of the
    command. Its output is not kept as the log of the container; the caller receives it.

    The container outlives a Podman process that is killed. So the caller runs `remove` when its script ends early.
    The network must exist; see `ensure_network`.

    Args:
        command: the command and its arguments; none for the command of the service.
        name: see `one_off_name`.
        release: the id of the release, for the label.
        entrypoint: replaces that of the service or image; an empty one runs the command itself.
        options: more options of `podman run`, such as `--interactive`.
        replaces_shell: end the shell with `exec`, so that Podman gets its signals and passes them on.
    """
    directory = config_directory(app, service)
    marks = {"app": app.name, "environment": app.environment, "release": release, ONE_OFF: service.name}
    arguments = ["podman", "run", "--rm", "--name", name, "--pull=never", "--network", network_name(app.name)]
    arguments += [*_options(app, service), "--log-driver", "none", *label_options(marks), *options]
    arguments += entrypoint_option(service.entrypoint if entrypoint is None else entrypoint)
    return script(
        _environment(service, directory),
        *(refuse_link(mount.source) for mount in service.mounts),
        ensure_volumes(app, service.options),
        remove(name, seconds=service.drain.stop_seconds),
        _with_environment(
            service,
            directory,
            arguments,
            [service.image.pinned, *(command or service.command)],
            replaces_shell=replaces_shell,
        ),
    )


def _options(app: Application, service: Service) -> list[str]:
    """The options of every container of a service: how it stops, its environment, mounts, limits and options."""
    directory = config_directory(app, service)
    arguments = ["--stop-timeout", str(round(service.drain.stop_seconds)), "--env-file", f"{directory}/env"]
    for secret in service.secret_files:
        arguments += ["--volume", f"{directory}/{SECRETS}/{secret.name}:{secret.target}:ro"]
    for mount in service.mounts:
        arguments += ["--volume", f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"]
    arguments += limit_options(service.memory_bytes, service.cpus, service.confinement)
    return [*arguments, *option_arguments(app.name, service.options)]


def entrypoint_option(entrypoint: Sequence[str] | None) -> list[str]:
    """The option that replaces the entrypoint of an image. Source: podman-run(1): a JSON array, or '' for none.

    Source: measured with Podman 4.3 and 5.4: with this option, Podman ignores the command of the image.
    """
    if entrypoint is None:
        return []
    return ["--entrypoint", json.dumps(list(entrypoint)) if entrypoint else ""]


def label_options(marks: Mapping[str, str]) -> list[str]:
    """The options that label a container or a volume."""
    return [word for key, value in marks.items() for word in ("--label", f"{LABEL}.{key}={value}")]


def limit_options(memory_bytes: int | None, cpus: float | None, confinement: Confinement | None) -> list[str]:
    """The options that limit a container.

    Rootless on cgroup v1, Podman ignores the limits of processes and memory with a warning.
    """
    arguments = ["--memory", f"{memory_bytes}b"] if memory_bytes else []
    if cpus:
        arguments += ["--cpus", f"{cpus:g}"]
    if confinement is None:
        return arguments
    arguments += ["--security-opt", "no-new-privileges"] if confinement.no_new_privileges else []
    for option, names in (("--cap-drop", confinement.cap_drop), ("--cap-add", confinement.cap_add)):
        arguments += [word for name in names for word in (option, name)]
    return [*arguments, "--pids-limit", str(confinement.pids_limit)]


def log_options(confinement: Confinement) -> list[str]:
    """The options of a container's log.

    Source: podman-run(1): a k8s-file log starts anew at `max-size`; a journald log has the limits of the journal.
    """
    arguments = ["--log-driver", confinement.log_driver]
    if confinement.log_driver == "k8s-file":
        arguments += ["--log-opt", f"max-size={confinement.log_max_bytes}b"]
    return arguments


def _environment(service: Service, directory: str) -> Script:
    """Write the container's environment and secret files; for an earlier release they must exist already."""
    if service.recorded:
        env_file = f"{directory}/env"
        missing = f"{service.name}: the environment of the earlier release is gone: {env_file}"
        return Script(f"[ -f {quote(env_file)} ] || {{ echo {quote(missing)}; exit 1; }}")
    return write_environment(directory, service.env, service.secret_files)


def write_environment(
    directory: str, env: Sequence[tuple[str, str]], secret_files: Sequence[SecretFile] = ()
) -> Script:
    """Write an environment: `env` for values of one line, a file for each other value and for each secret.

    Only the deploy user may enter the directory, so a secret file may be readable for every user of the container.
    """
    lines = "".join(f"{key}={value}\n" for key, value in env if not has_line_break(value))
    directories = [directory]
    files = [write_file(f"{directory}/env", lines, secret=True)]
    for key, value in ((key, value) for key, value in env if has_line_break(value)):
        directories.append(f"{directory}/{MULTILINE}")
        files.append(write_file(f"{directory}/{MULTILINE}/{key}", value, secret=True))
    for secret in secret_files:
        directories.append(f"{directory}/{SECRETS}")
        files.append(write_file(f"{directory}/{SECRETS}/{secret.name}", secret.value, mode="0444", secret=True))
    return script(f"(umask 077; {shell_join('mkdir', '-p', *dict.fromkeys(directories))})", *files)


def has_line_break(value: str) -> bool:
    """Whether the value cannot be a line of an env file."""
    return "\n" in value or "\r" in value


def _with_environment(
    service: Service,
    directory: str,
    arguments: Sequence[str],
    rest: Sequence[str],
    *,
    replaces_shell: bool = False,
) -> str:
    """A command that runs Podman with the service's values of several lines, which a host may know alone."""
    if service.recorded or replaces_shell:
        return _with_multiline_values(directory, arguments, rest, replaces_shell=replaces_shell)
    return with_environment(service.env, directory, arguments, rest)


def with_environment(
    env: Sequence[tuple[str, str]], directory: str, arguments: Sequence[str], rest: Sequence[str]
) -> str:
    """A command that runs Podman with the environment that `write_environment` wrote to this directory.

    `arguments` name the `env` file there; `rest` follows the options: the image and the command.
    """
    if any(has_line_break(value) for _, value in env):
        return _with_multiline_values(directory, arguments, rest)
    return shell_join(*arguments, *rest)


def _with_multiline_values(
    directory: str, arguments: Sequence[str], rest: Sequence[str], *, replaces_shell: bool = False
) -> str:
    """A command that runs Podman with the values that have files of their own.

    Podman takes them from its own environment, so no value is an argument. The container keeps them, like those of an
    env file.

    Source: measured with Podman 4.3 and 5.4: a container with `--secret type=env` does not start again once its secret
    is deleted, so each kept container would need its own.
    """
    before, after = ("exec ", "") if replaces_shell else ("", "\n)")
    return f"""\
{"" if replaces_shell else "("}
  set --
  for file in {quote(directory)}/{MULTILINE}/*; do
    if [ -f "$file" ]; then
      value=$(cat "$file" && echo .)
      export "${{file##*/}}=${{value%.}}"
      set -- "$@" --env "${{file##*/}}"
    fi
  done
  {before}{shell_join(*arguments)} "$@" {shell_join(*rest)}{after}"""


def revive(app: Application, service: Service, color: Color) -> str:
    """Start the kept container of an idle color as a candidate, without the service's alias.

    Source: measured with Podman 4.3 and 5.4: a stopped container may leave its network and join it again.
    """
    name, network = container_name(app.name, service.name, color), network_name(app.name)
    alias = [word for alias in _first_aliases(service, color) for word in ("--alias", alias)]
    return "\n".join(
        (
            *(refuse_link(mount.source) for mount in service.mounts),
            shell_join("podman", "network", "disconnect", "--force", network, name) + " 2>/dev/null || :",
            shell_join("podman", "network", "connect", *alias, network, name),
            start(name),
        )
    )


def _first_aliases(service: Service, color: Color) -> tuple[str, ...]:
    """The aliases of a candidate when it starts."""
    own = f"{service.name}-{color.value}"
    return (own, service.alias) if service.is_exclusive and service.alias else (own,)


def give_alias(app: Application, service: Service, color: Color, address_file: str) -> str:
    """Give a color that has passed its gate the service's alias, by which other containers find it.

    The container keeps its address, so that its connections survive: those to a database that the application keeps
    open would otherwise hang for minutes. The script is safe to repeat, also if it stopped while the container had no
    network; then the address may be a new one.

    Args:
        app: the application.
        service: the service.
        color: the color that gets the alias.
        address_file: the address of the container as `address_form` prints it; without the file, Podman is asked.

    Source: measured with Podman 4.3 and 5.4: a running container may leave its network and join it again with other
    aliases, and its published port stays; joining twice is refused. Its connections go on if both addresses are the same.
    """
    if not service.alias or service.is_exclusive:
        return ""
    name, network = container_name(app.name, service.name, color), network_name(app.name)
    ends = ["--alias", service.alias, "--alias", f"{service.name}-{color.value}", network, name]
    inspect = shell_join("podman", "container", "inspect", "--format", address_form(app.name), name)
    connect = shell_join("podman", "network", "connect")
    return f"""\
address=$(cat {quote(address_file)} 2>/dev/null) || address=$({inspect} 2>/dev/null) || address=''
{shell_join("podman", "network", "disconnect", network, name)} 2>/dev/null || :
case "$address" in
  ?*/?*) {connect} --ip "${{address%/*}}" --mac-address "${{address#*/}}" {shell_join(*ends)} 2>/dev/null ;;
  *) false ;;
esac || {connect} {shell_join(*ends)}"""


def address_form(app: str) -> str:
    """The format with which Podman prints the address of a container in the application's network: `IP/MAC`."""
    return f'{{{{with index .NetworkSettings.Networks "{network_name(app)}"}}}}{{{{.IPAddress}}}}/{{{{.MacAddress}}}}{{{{end}}}}'


def ensure_network(app: str) -> str:
    """Create the application's network if it is missing."""
    network = quote(network_name(app))
    return f"podman network exists {network} || podman network create {network} >/dev/null"


def stop(*names: str, seconds: float | None) -> str:
    """Stop containers together and keep them: SIGTERM, then SIGKILL after `seconds`. Ignores missing containers.

    Without `seconds`, each has the time with which it was created.

    It succeeds if none of them runs afterwards: Podman also fails for a container that its monitor cleans up at the same
    time, and for one whose removal was interrupted.
    """
    limit: list[str | int] = [] if seconds is None else ["--time", round(seconds)]
    stop = shell_join("podman", "stop", "--ignore", *limit, *names)
    running = shell_join("podman", "ps", "--quiet", *(f"--filter=name=^{name}$" for name in names))
    return f'{{ {stop} >/dev/null || test -z "$({running} || echo unknown)"; }}'


def stop_other(app: Application, service: Service, color: Color) -> str:
    """Stop the other color of an exclusive service, and prove that it stays down; '' for other services.

    Everything that starts a container of an exclusive service runs this before. It fails rather than leave a container
    that may run. Source: measured with Podman 4.3: while a container crashes and restarts, `podman stop` succeeds without
    an effect, and the state is not `exited`. A stop that leaves `exited` behind is final.
    """
    if not service.is_exclusive:
        return ""
    name, seconds = container_name(app.name, service.name, color.other), round(service.drain.stop_seconds)
    return f"{_STOP_FOR_GOOD}\n{shell_join('stop_for_good', name, seconds)}"


#: Define `stop_for_good NAME SECONDS`.
_STOP_FOR_GOOD = """\
stop_for_good() {
  tries=0
  while :; do
    podman container exists "$1" || { [ $? -ne 1 ] || return 0; }
    podman stop --ignore --time "$2" "$1" >/dev/null 2>&1 || :
    status=$(podman container inspect --format '{{.State.Status}}' "$1" 2>/dev/null) || status=unknown
    case "$status" in exited | created | configured) return 0 ;; esac
    tries=$((tries + 1))
    if [ "$tries" -ge 50 ]; then
      echo "$1 must not run beside its successor, but cannot be stopped: its state is $status"
      return 1
    fi
  done
}"""


def remove(*names: str, seconds: float) -> str:
    """Stop containers and remove them, in any state. Ignores missing containers."""
    return shell_join("podman", "rm", "--force", "--ignore", "--time", round(seconds), *names) + " >/dev/null"


def start(name: str) -> str:
    """Start a kept container; does nothing to a running one."""
    return shell_join("podman", "start", name) + " >/dev/null"


def start_alone(app: Application, service: Service, color: Color) -> str:
    """Start a kept container; for an exclusive service, after its other color has stopped."""
    return "\n".join(
        filter(None, (stop_other(app, service, color), start(container_name(app.name, service.name, color))))
    )


def restart(name: str, stop_seconds: float) -> str:
    """Stop a container in any state and start it again."""
    return f"{stop(name, seconds=stop_seconds)} || {shell_join('podman', 'kill', '--signal', 'KILL', name)} >/dev/null || :\n{start(name)}"


def print_last_logs(names: Iterable[str]) -> str:
    """Print the last log lines of each container, under a title."""
    return "\n".join(f"echo {quote(f'last log lines of {name}:')}\n{last_logs(name)}" for name in names) or ":"


def last_logs(name: str, lines: int = 20) -> str:
    """Print a container's last log lines; never fails."""
    return shell_join("podman", "logs", "--tail", lines, name) + " 2>&1 || :"


def pull(images: Iterable[Image]) -> str:
    """Pull images by digest, without contacting the registry for images on the host. Prints only progress.

    One Podman process lists the images that the host has. Source: measured with Podman 4.3 and 5.4: `image inspect`
    describes the images that it finds, and fails if one is missing.
    """
    unique = tuple(dict.fromkeys(images))
    digests = "{{range .RepoDigests}}{{.}} {{end}}"
    inspect = shell_join("podman", "image", "inspect", "--format", digests, *(image.pinned for image in unique))
    pulls = (
        f"  case $present in *{quote(f' {full_name(image.repository)}@{image.digest} ')}*) ;; *) {pull_one(image, quote(image.pinned))} ;; esac\n"
        for image in unique
    )
    listed = "present=\" $(printf '%s' \"$present\" | tr '\\n' ' ') \""
    return f"{define_pull(unique)}\npresent=$({inspect} 2>/dev/null) || {{\n  {listed}\n{''.join(pulls)}}}"


def define_pull(images: Sequence[Image]) -> str:
    """Define the function that `pull_one` calls; with several images it names each one in its progress.

    Source: measured with rootless Podman 4.3 and 5.4: during a pull, TMPDIR contains the compressed layers as they
    arrive, and no layer is removed before the last one has arrived. Podman's own setting is the default of TMPDIR.
    """
    report = progress.print_bytes('"$sent"')
    if len(images) > 1:
        size = '"$((sent / 1000000)).$((sent / 100000 % 10))"'
        report = progress.print_text("%s %s MB", '"$1"', size)
    return _PULL.replace("REPORT", report)


def pull_one(image: Image, arguments: str) -> str:
    """A shell command that pulls an image after `define_pull`; `arguments` is the end of its command line."""
    name = image.repository.rpartition("/")[2][:_LONGEST_NAME]
    return f"pull {quote(name)} {shell_join('podman', 'pull', '--quiet')} {arguments}"


#: Define `pull NAME COMMAND…`: run the command, and report once per second how many bytes it has received. Its status
#: is that of the command. The loop ends with the command, and with the script, even if the script is killed.
_PULL = """\
copies=''
pull() {
  if [ -z "$copies" ]; then
    copies=$(podman info --format '{{.Store.ImageCopyTmpDir}}' 2>/dev/null) || copies=''
    copies=${copies:-/var/tmp}
  fi
  (
    meter=''
    folder=$(mktemp -d "$copies/rolling-pull.XXXXXX" 2>/dev/null) || { shift && exec "$@" >/dev/null; }
    trap 'rm -rf "$folder" || :; if kill "$meter" 2>/dev/null; then wait "$meter" 2>/dev/null || :; fi' EXIT
    measure "$1" "$folder" &
    # The trap of TERM follows: a process that was just forked still has it, and would lose the signal.
    meter=$!
    trap 'exit 143' TERM INT HUP
    shift
    TMPDIR=$folder "$@" >/dev/null
  )
}
measure() {
  shown=8192 nap=''
  trap 'kill "$nap" 2>/dev/null; exit' TERM
  while kill -0 $$ 2>/dev/null && [ -d "$2" ]; do
    sleep 1 >/dev/null 2>&1 &
    nap=$!
    wait "$nap"
    sent=$(du -sb "$2" 2>/dev/null) || continue
    sent=${sent%%[!0-9]*}
    if [ "$sent" -gt "$shown" ]; then
      shown=$sent
      REPORT
    fi
  done
}"""
#: The longest name of an image in its progress.
_LONGEST_NAME = 40


def ask_registry(image: Image, *options: str) -> list[str]:
    """The command that prints the registry's description of an image as JSON, without pulling it.

    Source: skopeo-inspect(1): `.Digest` is the digest of the reference; for a multi-platform image, of the index.
    Source: the OCI image specification names the label of the source revision.
    """
    return ["skopeo", *options, "inspect", "--no-tags", f"docker://{image.exact}"]


def registry_answer(output: str) -> tuple[str, str]:
    """The digest and the revision in that JSON; an unusual revision label counts as ''. Raises Malformed.

    The builder of an image chooses its labels. A label can hold line breaks and digests, but cannot add a JSON field.
    """
    description = untrusted.json_object(output)
    digest, labels = untrusted.string(description.get("Digest")), description.get("Labels")
    if not _DIGEST.fullmatch(digest):
        raise Malformed(f"{untrusted.line(digest)!r} is not a digest")
    revision = labels.get(_REVISION) if isinstance(labels, dict) else ""
    if not isinstance(revision, str) or len(revision) > _LONGEST_REVISION or not _PLAIN_REVISION.fullmatch(revision):
        return digest, ""
    return digest, revision


def resolve(images: Iterable[Image]) -> str:
    """Print `NAME digest revision` for each image, or a line with `!` and the reason if its registry refuses."""
    # The builder chooses an image's labels: keep plain characters of the first line, which starts with the digest.
    clean = "grep -m 1 '^sha256:' | tr -cd 'A-Za-z0-9 <>._:+/-'"
    parts = []
    for image in dict.fromkeys(images):
        ask = ["skopeo", "inspect", "--no-tags", "--format", _RESOLVED, f"docker://{image.exact}"]
        parts.append(
            f"if answer=$({shell_join('timeout', '20', *ask)} 2>&1); then\n"
            f"printf '%s %s\\n' {quote(image.exact)} \"$(printf '%s\\n' \"$answer\" | {clean})\"\n"
            f'else printf \'! %s %s\\n\' {quote(image.exact)} "$(printf %s "$answer" | tail -n 1)"; fi'
        )
    return "\n".join(parts)


def prune_images(repositories: Iterable[str], keep_digests: Iterable[str], own_history: str, mode: Mode) -> str:
    """Select images that are unused by containers, kept releases and the histories of other applications.

    Podman is asked for the images of containers only if an image is left to delete, and for its size only if the mode
    reports it.

    An image may have several names and digests if it was pulled and pushed. A kept image keeps all of them, and the
    script removes names one by one. Source: podman-rmi(1) removes no image of several names by its id; measured with
    Podman 4.3 and 5.4: an image is listed if it matches one of several `reference` filters.
    """
    kept = "|".join(f"*{digest}*" for digest in sorted(set(keep_digests) - {""})) or "none"
    listed = "{{.ID}} {{.Digest}} {{.Names}}"
    size = shell_join("podman", "image", "inspect", "--format", "{{.Size}}")
    measure = f'bytes=$({size} "$id" 2>/dev/null </dev/null) || bytes=0' if mode is not Mode.QUIET else "bytes=0"
    used = shell_join("podman", "ps", "--all", "--no-trunc", "--format", "{{.ImageID}}")
    # Not the value of the deploy user's environment.
    parts = ["unset used", _digests_of_others(own_history)]
    if filters := [word for name in dict.fromkeys(repositories) for word in ("--filter", f"reference={name}")]:
        images = shell_join("podman", "images", "--no-trunc", "--format", listed, *filters)
        parts.append(
            f"{images} | tr -d '[]' | sort -u | while read -r id digest names; do\n"
            f'  case "$digest $names" in {kept}) continue ;; esac\n'
            f"  if [ -z \"${{used+known}}\" ]; then used=$({used} 2>/dev/null </dev/null) || used=''; fi\n"
            '  case "$used" in *"${id#sha256:}"*) continue ;; esac\n'
            "  for name in $digest $names; do\n"
            "    case $name in *sha256:*) ;; *) continue ;; esac\n"
            '    case "$others" in *"${name##*@}"*) continue 2 ;; esac\n'
            "  done\n"
            f"  {measure}\n"
            "  repository=${names%%[@ ]*}\n"
            "  case ${repository##*/} in *:*) repository=${repository%:*} ;; esac\n"
            "  # shellcheck disable=SC2086\n"
            '  prune_entry image "$repository@$digest" "$bytes" '
            """sh -c 'for name do podman rmi "$name"; done' sh ${names:-"$id"}\n"""
            "done"
        )
    return "\n".join(parts)


def _digests_of_others(own_history: str) -> str:
    """Set `others` to the digests in the newest part of every other application's history.

    The deploy users of those applications write these files: the script skips links and pipes, and limits size and
    limited.
    """
    return f"""\
others=$(for file in /var/lib/*/releases.jsonl; do
  if [ "$file" = {quote(own_history)} ] || [ -L "$file" ] || [ ! -f "$file" ]; then continue; fi
  timeout {_HISTORY_SECONDS} tail -c {_HISTORY_BYTES} "$file" 2>/dev/null | grep -aoE 'sha256:[0-9a-f]{{64}}' || :
done | sort -u)"""


def prune_configs(home: str, keep: Iterable[str]) -> str:
    """Select the configurations, secrets included, and definitions that no kept release and no container needs."""
    kept = "|".join(quote(name) for name in sorted(set(keep))) or "''"
    return (
        f"for found in {quote(home)}/config/*; do\n"
        '  if [ ! -e "$found" ]; then continue; fi\n'
        f'  case "$(basename "$found" .json)" in {kept}) ;;\n'
        f'    *) prune_entry configuration "$found" {size_of("found")} rm -rf "$found" ;;\n'
        "  esac\n"
        "done"
    )


_END = "END-OF-THE-PROGRAM"

#: Sets `$rootless`, for ENTER.
FIND_NAMESPACE = "rootless=yes\nif [ \"$(id -u)\" -eq 0 ]; then rootless=''; fi"
#: The prefix of a command that runs in the namespace.
ENTER = "${rootless:+podman} ${rootless:+unshare}"
#: Runs `$program` there; see `in_namespace`.
IN_NAMESPACE = f'{ENTER} sh -c "$program"'


def in_namespace(text: str) -> str:
    """Put a program into `$program`, for IN_NAMESPACE."""
    return f"program=$(cat <<'{_END}'\n{text}\n{_END}\n)\n{FIND_NAMESPACE}"
