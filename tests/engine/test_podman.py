"""Podman commands: arguments, labels and the environment file, recorded by a `podman` stub."""

from __future__ import annotations

import itertools
import os
import stat
from dataclasses import fields, replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import podman
from rolling_upgrade.engine.history import dump_definition, parse_definition
from rolling_upgrade.engine.model import (
    Color,
    Confinement,
    ContainerOptions,
    Handoff,
    Image,
    Mount,
    SecretFile,
    Service,
    Volume,
)
from rolling_upgrade.engine.prune_entry import Mode, prune_entry
from rolling_upgrade.engine.shell import Script, script, sha256
from tests.support.sample import application, backend, frontend, image, worker
from tests.support.shell import HOSTILE, Programs, moved, sh

APP = application()


def run(programs: Programs, home: Path, service: Service, release: str = "r2") -> list[str]:
    """Start the green candidate of a service and return the arguments of `podman run`."""
    home.mkdir()
    programs.add("podman")
    text = moved(podman.run(application(service), service, Color.GREEN, release), APP, home)
    done = sh(text, path=programs.path)
    assert (done.returncode, done.stderr) == (0, "")
    return next(call for call in programs.calls("podman") if call[1] == "run")


def after(words: list[str], option: str) -> list[str]:
    """Return the values of an option."""
    return [value for word, value in itertools.pairwise(words) if word == option]


def test_run_publishes_the_candidate_port_only_on_loopback(programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", backend())

    assert after(words, "--publish") == ["127.0.0.1:28080:8080"]
    assert after(words, "--name") == ["shop-backend-green"]


def test_run_image_is_named_by_digest_and_never_pulled(programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", backend())

    assert words[-1] == f"registry.test:5000/shop/backend@{image('backend').digest}"
    assert "--pull=never" in words


def test_run_passes_limits_mounts_and_stop_timeout(programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", backend())

    assert after(words, "--volume") == ["/srv/shop/data:/app/data", "/srv/shop/config:/app/config:ro"]
    assert (after(words, "--memory"), after(words, "--cpus")) == (["536870912b"], ["1.5"])
    assert after(words, "--stop-timeout") == ["4"]


def test_run_service_without_limits_gets_none(programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", frontend())

    assert not {"--memory", "--cpus", "--volume"} & set(words)


@pytest.mark.parametrize(
    ("policy", "given"), [("on-failure", "on-failure"), ("always", "unless-stopped"), ("no", "no")]
)
def test_run_restart_policy_never_starts_an_old_color_at_boot(
    policy: str, given: str, programs: Programs, tmp_path: Path
) -> None:
    words = run(programs, tmp_path / "home", backend(restart_policy=policy))

    assert after(words, "--restart") == [given]


def test_run_labels_identify_the_container(programs: Programs, tmp_path: Path) -> None:
    labels = dict(label.split("=", 1) for label in after(run(programs, tmp_path / "home", backend()), "--label"))

    assert {key: labels[f"rolling.{key}"] for key in ("app", "environment", "service", "color", "release")} == {
        "app": "shop",
        "environment": "production",
        "service": "backend",
        "color": "green",
        "release": "r2",
    }
    assert labels["rolling.image"] == "registry.test:5000/shop/backend:v2"
    assert labels["rolling.digest"] == image("backend").digest


def test_run_candidate_has_no_alias_before_its_gate(programs: Programs, tmp_path: Path) -> None:
    assert after(run(programs, tmp_path / "home", backend()), "--network-alias") == ["backend-green"]


def test_run_passes_no_secret_in_arguments(programs: Programs, tmp_path: Path) -> None:
    for name in ("base64", "mkdir", "chmod", "mv"):
        programs.add(name, f'exec /usr/bin/{name} "$@"')

    run(programs, tmp_path / "home", backend(env=(("TOKEN", "hunter2"),)))

    assert {call[0] for call in programs.calls()} == {"base64", "chmod", "mkdir", "mv", "podman"}
    assert not [call for call in programs.calls() if any("hunter2" in word for word in call)]


@pytest.mark.parametrize("value", [value for value in HOSTILE if "\n" not in value])
def test_run_writes_the_environment_unchanged_to_a_private_file(value: str, programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", backend(env=(("KEY", value), ("OTHER", "x"))))

    file = Path(after(words, "--env-file")[0])
    assert file.read_bytes() == f"KEY={value}\nOTHER=x\n".encode()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not list(tmp_path.rglob("pwned"))


def test_run_script_masks_the_environment() -> None:
    text = podman.run(APP, backend(env=(("TOKEN", "hunter2"),)), Color.BLUE, "r2")

    assert text.secrets
    assert not any(secret in text.masked for secret in text.secrets)


def test_run_replaces_a_left_over_container_of_the_name(programs: Programs, tmp_path: Path) -> None:
    run(programs, tmp_path / "home", backend())

    [call] = programs.calls("podman")
    assert call[1] == "run"
    assert "--replace" in call


def test_run_missing_network_is_created(programs: Programs, tmp_path: Path) -> None:
    programs.add("podman", '[ "$1 $2" != "network exists" ]')

    sh(podman.ensure_network("shop"), path=programs.path)

    assert [call[1:] for call in programs.calls()] == [
        ["network", "exists", "shop-network"],
        ["network", "create", "shop-network"],
    ]


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"image": image("backend", "v9", "sha256:" + "9" * 64)}, True),
        ({"env": (("LEVEL", "info"), ("SECRET_KEY", "s3cret'x"))}, True),
        ({"env": (("LEVEL", "debug"), ("SECRET_KEY", "s3cret'x"))}, False),
        ({"mounts": (Mount("/srv/shop/data", "/app/data", True),)}, False),
        ({"memory_bytes": 1}, False),
        ({"cpus": 2.0}, False),
        ({"restart_policy": "no"}, False),
        ({"alias": ""}, False),
        ({"service_port": 8081}, False),
    ],
)
def test_spec_hash_changes_with_the_configuration(changes: dict[str, object], same: bool) -> None:
    assert (podman.spec_hash("shop", backend(**changes)) == podman.spec_hash("shop", backend())) is same


def test_labels_contain_no_hash_of_a_value() -> None:
    service = backend(env=(("PIN", "1234"),))
    said = " ".join(podman.labels(APP, service, Color.BLUE, "r1").values())

    for text in ("1234", "PIN=1234"):
        assert sha256(text.encode())[:8] not in said
    assert "PIN" not in said


def test_spec_hash_is_stable() -> None:
    """Another hash would replace every container at the next deploy; a fast one would allow guessing short values."""
    assert podman.spec_hash("shop", backend()) == "8ad7f4fe8a944bb2"


CONNECT = ["--alias", "backend", "--alias", "backend-blue", "shop-network", "shop-backend-blue"]


def alias(programs: Programs, address_file: Path) -> list[list[str]]:
    """Give the alias. Return the arguments of each `podman network`."""
    sh(script(podman.give_alias(APP, backend(), Color.BLUE, str(address_file))), path=programs.path)
    return [call[2:] for call in programs.calls() if call[1] == "network"]


@pytest.mark.parametrize("stored", [True, False])
def test_give_alias_joins_the_network_again_with_both_names_and_the_same_address(
    programs: Programs, tmp_path: Path, stored: bool
) -> None:
    """Another address would break the connections of the application, such as those to its database."""
    programs.add("podman", 'if [ "$1" = container ]; then echo 10.89.0.7/a6:00:00:00:00:07; fi')
    if stored:
        (tmp_path / "address").write_text("10.89.0.7/a6:00:00:00:00:07\n")

    assert alias(programs, tmp_path / "address") == [
        ["disconnect", "shop-network", "shop-backend-blue"],
        ["connect", "--ip", "10.89.0.7", "--mac-address", "a6:00:00:00:00:07", *CONNECT],
    ]
    assert len(programs.calls()) == (2 if stored else 3)


def test_give_alias_takes_another_address_if_its_own_is_taken(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "address").write_text("10.89.0.7/a6:00:00:00:00:07\n")
    programs.add("podman", '[ "$3" != --ip ]')

    assert alias(programs, tmp_path / "address")[-1] == ["connect", *CONNECT]


def test_give_alias_is_safe_to_repeat_after_it_stopped_half_way(programs: Programs, tmp_path: Path) -> None:
    """The container has no network then, so that Podman prints no address."""
    programs.add("podman", '[ "$2" != disconnect ]')

    assert [call[0] for call in alias(programs, tmp_path / "address")] == ["disconnect", "connect"]


def test_give_alias_does_nothing_for_a_service_without_alias() -> None:
    assert podman.give_alias(APP, backend(alias=""), Color.BLUE, "address") == ""


def test_pull_skips_images_that_are_present(programs: Programs) -> None:
    """Podman describes the present images, then fails for the missing one."""
    described = f"other.test/backend@{image('backend').digest} {image('backend').pinned} "
    programs.add("podman", f"if [ $1 = image ]; then echo '{described}'; exit 125; fi")

    sh(podman.pull([image("backend"), image("frontend"), image("backend")]), path=programs.path)

    assert [call[1:3] for call in programs.calls()] == [["image", "inspect"], ["info", "--format"], ["pull", "--quiet"]]
    assert programs.calls()[-1][-1] == image("frontend").pinned


def test_pull_present_digest_of_another_repository_is_pulled(programs: Programs) -> None:
    described = f"other.test/backend@{image('backend').digest} "
    programs.add("podman", f"if [ $1 = image ]; then echo '{described}'; exit 125; fi")

    sh(podman.pull([image("backend")]), path=programs.path)

    assert programs.calls()[-1][1:] == ["pull", "--quiet", image("backend").pinned]


def test_pull_recognises_the_full_name_of_a_short_one(programs: Programs) -> None:
    short = Image.parse("nginx:1").with_digest(image("backend").digest)
    described = f"docker.io/library/nginx@{short.digest} "
    programs.add("podman", f"if [ $1 = image ]; then echo '{described}'; exit 125; fi")

    sh(podman.pull([short, image("frontend")]), path=programs.path)

    assert [call[-1] for call in programs.calls() if call[1] == "pull"] == [image("frontend").pinned]


def test_pull_asks_once_when_all_images_are_present(programs: Programs) -> None:
    programs.add("podman")

    sh(podman.pull([image("backend"), image("frontend")]), path=programs.path)

    assert [call[1:3] for call in programs.calls()] == [["image", "inspect"]]


def test_pull_failing_registry_fails_the_script(programs: Programs) -> None:
    programs.add("podman", "exit 125")

    assert sh(script(podman.pull([image("backend")]), "echo on"), path=programs.path).returncode == 125


def tag(name: str) -> Image:
    return replace(image(name), digest="")


def test_resolve_image_with_a_digest_is_asked_for_by_it(programs: Programs) -> None:
    programs.add("skopeo", f"echo {image('backend').digest} abc")

    done = sh(script(podman.resolve([image("backend")])), path=programs.path)

    assert done.stdout == f"{image('backend').pinned} {image('backend').digest} abc\n"
    assert [call[-1] for call in programs.calls("skopeo")] == [f"docker://{image('backend').pinned}"]


def test_resolve_known_and_unknown_images_get_a_line_each(programs: Programs) -> None:
    programs.add(
        "skopeo", 'case "$*" in *backend*) echo sha256:aa ;; *) echo one; echo "manifest unknown" >&2; exit 1 ;; esac'
    )

    done = sh(script(podman.resolve([tag("backend"), tag("frontend")])), path=programs.path)

    assert done.stdout.splitlines() == [
        "registry.test:5000/shop/backend:v2 sha256:aa",
        "! registry.test:5000/shop/frontend:v2 manifest unknown",
    ]


def _prune_images(*kept: str, mode: Mode = Mode.QUIET) -> Script:
    return script(prune_entry(mode), podman.prune_images(["r/a"], kept, "/var/lib/shop/releases.jsonl", mode))


def test_prune_images_without_an_expired_image_only_lists_them(programs: Programs) -> None:
    programs.add("podman", '[ "$1" != images ] || echo "id sha256:one [r/a@sha256:one]"')

    sh(_prune_images("sha256:one"), path=programs.path)

    assert [call[1] for call in programs.calls("podman")] == ["images"]


def test_prune_images_lists_containers_once_for_several_images(programs: Programs) -> None:
    programs.add(
        "podman", 'case "$1" in images) echo "a sha256:a"; echo "b sha256:b"; echo "c sha256:c" ;; ps) echo b ;; esac'
    )

    sh(_prune_images(), path=programs.path)

    assert [call[1:] for call in programs.calls("podman") if call[1] != "images"] == [
        ["ps", "--all", "--no-trunc", "--format", "{{.ImageID}}"],
        ["rmi", "a"],
        ["rmi", "c"],
    ]


def test_prune_images_reports_the_size_of_an_image(programs: Programs) -> None:
    programs.add("podman", 'case "$1" in images) echo "id sha256:one [r/a@sha256:one]" ;; image) echo 5120 ;; esac')

    assert sh(_prune_images(mode=Mode.REPORT), path=programs.path).stdout == "gone\timage\tr/a@sha256:one\t5120\n"


def test_prune_images_keeps_digests_and_other_repositories(programs: Programs) -> None:
    programs.add("podman", '[ "$1" != images ] || printf "old sha256:old\\nnew sha256:new\\n"')

    sh(
        _prune_images("sha256:new"),
        path=programs.path,
    )

    assert [call[1:] for call in programs.calls() if call[1] == "rmi"] == [["rmi", "old"]]
    assert after(programs.calls("podman")[0], "--filter") == ["reference=r/a"]


def test_prune_images_image_with_a_kept_digest_keeps_all_its_names(programs: Programs) -> None:
    programs.add("podman", '[ "$1" != images ] || echo "id sha256:one [r/a@sha256:one r/a@sha256:two]"')

    sh(
        _prune_images("sha256:two"),
        path=programs.path,
    )

    assert [call for call in programs.calls() if call[1] == "rmi"] == []


def test_prune_images_removes_each_name_of_an_image(programs: Programs) -> None:
    programs.add("podman", '[ "$1" != images ] || echo "id sha256:one [r/a@sha256:one r/a:v2]"')

    sh(
        _prune_images("sha256:two"),
        path=programs.path,
    )

    assert [call[2] for call in programs.calls() if call[1] == "rmi"] == ["r/a@sha256:one", "r/a:v2"]


def test_prune_images_ignores_an_image_in_use(programs: Programs) -> None:
    programs.add("podman", 'case "$1" in images) echo "old sha256:old" ;; rmi) exit 2 ;; esac')

    assert (
        sh(
            _prune_images(),
            path=programs.path,
        ).returncode
        == 0
    )


DIGESTS = {"needed": f"sha256:{'1' * 64}", "old": f"sha256:{'2' * 64}"}


def pruned(programs: Programs, hosts: Path) -> list[str]:
    """Return the deleted images of a host whose applications are in that directory."""
    rows = "\\n".join(f"{name} {digest}" for name, digest in DIGESTS.items())
    programs.add("podman", f'[ "$1" != images ] || printf "{rows}\\n"')
    own = "/var/lib/shop/releases.jsonl"
    text = script(prune_entry(Mode.QUIET), podman.prune_images(["r/a"], [], own, Mode.QUIET)).text.replace(
        "/var/lib/", f"{hosts}/"
    )
    done = sh(text, path=programs.path)
    assert done.returncode == 0, done
    return [call[2] for call in programs.calls("podman") if call[1] == "rmi"]


def history(hosts: Path, app: str, text: str) -> Path:
    (hosts / app).mkdir(parents=True)
    file = hosts / app / "releases.jsonl"
    file.write_text(text)
    return file


def test_prune_images_keeps_images_in_other_applications_histories(programs: Programs, tmp_path: Path) -> None:
    """The newest lines of a large history count; the application's own history does not protect an image."""
    history(tmp_path / "lib", "shop", f'{{"digests": "{DIGESTS["old"]}"}}\n')
    history(tmp_path / "lib", "notes", "x" * (8 << 20) + f'\n{{"digests": "{DIGESTS["needed"]}"}}\n')

    assert pruned(programs, tmp_path / "lib") == ["old"]


def test_prune_images_ends_with_any_file_in_place_of_another_history(programs: Programs, tmp_path: Path) -> None:
    hosts = tmp_path / "lib"
    history(hosts, "notes", DIGESTS["needed"])
    for app, target in (("zero", "/dev/zero"), ("gone", "/nonexistent"), ("own", str(hosts / "notes"))):
        (hosts / app).mkdir()
        (hosts / app / "releases.jsonl").symlink_to(target)
    (hosts / "pipe").mkdir()
    os.mkfifo(hosts / "pipe" / "releases.jsonl")
    (hosts / "directory" / "releases.jsonl").mkdir(parents=True)
    with history(hosts, "huge", "").open("r+b") as file:
        file.truncate(1 << 40)

    assert pruned(programs, hosts) == ["old"]


def test_prune_configs_deletes_all_but_kept_ones(tmp_path: Path) -> None:
    for name in ("a-1", "a-2", "b-1"):
        (tmp_path / "config" / name).mkdir(parents=True)

    sh(script(prune_entry(Mode.QUIET), podman.prune_configs(str(tmp_path), ["a-2", "b-1"])))

    assert sorted(path.name for path in (tmp_path / "config").iterdir()) == ["a-2", "b-1"]


def test_last_logs_missing_container_is_no_error(programs: Programs) -> None:
    programs.add("podman", "echo 'no such container' >&2; exit 125")

    done = sh(script(podman.last_logs("gone")), path=programs.path)

    assert (done.returncode, done.stdout) == (0, "no such container\n")


def test_resolve_label_of_an_image_does_not_affect_other_images(programs: Programs) -> None:
    programs.add("skopeo", 'printf "sha256:aa x\\nregistry.test:5000/shop/frontend:v2 sha256:ee\\nsha256:bb\\n"')

    done = sh(script(podman.resolve([tag("backend")])), path=programs.path)

    assert done.stdout == "registry.test:5000/shop/backend:v2 sha256:aa x\n"


def test_run_passes_the_confinement(programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", backend())

    assert after(words, "--security-opt") == ["no-new-privileges"]
    assert after(words, "--cap-drop") == ["AUDIT_WRITE", "FSETID", "MKNOD", "NET_RAW", "SETFCAP", "SYS_CHROOT"]
    assert after(words, "--cap-add") == []
    assert after(words, "--pids-limit") == ["2048"]
    assert (after(words, "--log-driver"), after(words, "--log-opt")) == (["k8s-file"], ["max-size=52428800b"])


def test_run_uses_the_confinement_of_the_service(programs: Programs, tmp_path: Path) -> None:
    own = Confinement(("SYS_PTRACE",), ("ALL",), no_new_privileges=False, pids_limit=64, log_driver="journald")
    words = run(programs, tmp_path / "home", backend(confinement=own))

    assert (after(words, "--cap-drop"), after(words, "--cap-add")) == (["ALL"], ["SYS_PTRACE"])
    assert (after(words, "--security-opt"), after(words, "--pids-limit")) == ([], ["64"])
    assert (after(words, "--log-driver"), after(words, "--log-opt")) == (["journald"], [])


def test_run_release_that_was_recorded_without_confinement_gets_none(programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", backend(confinement=None))

    options = {"--security-opt", "--cap-drop", "--cap-add", "--pids-limit", "--log-driver", "--log-opt"}
    assert not options & set(words)


@pytest.mark.parametrize(
    "changed",
    [
        None,
        Confinement(cap_add=("NET_ADMIN",)),
        Confinement(cap_drop=("ALL",)),
        Confinement(no_new_privileges=False),
        Confinement(pids_limit=100),
        Confinement(log_driver="journald"),
        Confinement(log_max_bytes=1024**2),
    ],
)
def test_spec_hash_changes_with_the_confinement(changed: Confinement | None) -> None:
    assert podman.spec_hash("shop", backend(confinement=changed)) != podman.spec_hash("shop", backend())


#: A value for every option, each different from its default.
OPTIONS = ContainerOptions(
    user="1000:1000",
    volumes=(Volume("media", "/app/media"), Volume("fonts", "/app/fonts", read_only=True)),
    tmpfs=("/run:size=65536k", "/cache"),
    shm_bytes=64 * 1024**2,
    read_only=True,
    devices=("/dev/fuse:/dev/fuse:rw",),
    ulimits=("nofile=1024:4096",),
    add_host=("db:10.0.0.5",),
    labels=(("team", "web team"),),
    init=True,
)
#: A `podman` that knows no volume but those that were created, which belong to the application.
VOLUMES = """\
case "$1 $2" in
  'volume exists') [ -e "$3" ]; exit ;;
  'volume create') for name do :; done; touch "$name" ;;
  'volume inspect') echo OWNER ;;
esac"""


def test_run_passes_the_options(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    programs.add("podman", f"cd {tmp_path}\n{VOLUMES.replace('OWNER', 'shop')}")
    service = backend(options=OPTIONS, mounts=())
    done = sh(
        moved(podman.run(application(service), service, Color.GREEN, "r2"), APP, tmp_path / "home"), path=programs.path
    )

    assert (done.returncode, done.stderr) == (0, "")
    words = next(call for call in programs.calls("podman") if call[1] == "run")
    assert after(words, "--user") == ["1000:1000"]
    assert after(words, "--volume") == ["shop-media:/app/media", "shop-fonts:/app/fonts:ro"]
    assert after(words, "--tmpfs") == ["/run:size=65536k", "/cache"]
    assert after(words, "--shm-size") == ["67108864b"]
    assert after(words, "--device") == ["/dev/fuse:/dev/fuse:rw"]
    assert after(words, "--ulimit") == ["nofile=1024:4096"]
    assert after(words, "--add-host") == ["db:10.0.0.5"]
    assert "team=web team" in after(words, "--label")
    assert {"--read-only", "--init"} < set(words)
    created = [call for call in programs.calls("podman") if call[1:3] == ["volume", "create"]]
    assert [call[-1] for call in created] == ["shop-media", "shop-fonts"]
    assert "rolling.app=shop" in after(created[0], "--label")


def test_run_without_options_passes_none(programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", backend(mounts=()))

    options = {
        "--user",
        "--volume",
        "--tmpfs",
        "--shm-size",
        "--read-only",
        "--device",
        "--ulimit",
        "--add-host",
        "--init",
    }
    assert not options & set(words)
    assert not [call for call in programs.calls("podman") if call[1] == "volume"]


def test_volumes_that_exist_are_not_created(programs: Programs, tmp_path: Path) -> None:
    for name in ("shop-media", "shop-fonts"):
        (tmp_path / name).touch()
    programs.add("podman", f"cd {tmp_path}\n{VOLUMES.replace('OWNER', 'shop')}")

    assert sh(script(podman.ensure_volumes(APP, OPTIONS)), path=programs.path).returncode == 0
    assert not [call for call in programs.calls("podman") if call[1:3] == ["volume", "create"]]


def test_volumes_of_another_application_are_refused(programs: Programs, tmp_path: Path) -> None:
    programs.add("podman", f"cd {tmp_path}\n{VOLUMES.replace('OWNER', 'other')}")

    done = sh(script(podman.ensure_volumes(APP, OPTIONS)), path=programs.path)

    assert (done.returncode, done.stdout) == (1, "the volume shop-media belongs to another application\n")


def test_volumes_without_labels_are_used(programs: Programs, tmp_path: Path) -> None:
    programs.add("podman", f"cd {tmp_path}\n{VOLUMES.replace('OWNER', '')}")

    assert sh(script(podman.ensure_volumes(APP, OPTIONS)), path=programs.path).returncode == 0


def test_volumes_that_podman_cannot_create_show_its_reason(programs: Programs) -> None:
    programs.add("podman", "echo 'no space left' >&2; exit 125")

    done = sh(script(podman.ensure_volumes(APP, OPTIONS)), path=programs.path)

    assert (done.returncode, done.stdout) == (1, "no space left\n")


def test_spec_hash_of_a_service_without_options_is_that_of_earlier_versions() -> None:
    before = podman.spec_hash("shop", backend())

    assert before == podman.spec_hash("shop", backend(options=ContainerOptions()))
    assert before == "8ad7f4fe8a944bb2"


@pytest.mark.parametrize("field", [field.name for field in fields(ContainerOptions)])
def test_spec_hash_changes_with_each_option(field: str) -> None:
    changed = ContainerOptions(**{field: getattr(OPTIONS, field)})

    assert podman.spec_hash("shop", backend(options=changed)) != podman.spec_hash("shop", backend())


def test_options_survive_the_definition_of_a_release() -> None:
    app = application(backend(options=OPTIONS))

    assert parse_definition(dump_definition(app), app.home).service("backend").options == OPTIONS


def run_once(programs: Programs, home: Path, service: Service, *command: str, status: int = 0) -> list[list[str]]:
    """Run a one-off container of a service, which exits with the status; return the calls of Podman."""
    home.mkdir()
    programs.add("podman", f'if [ "$1" = run ]; then exit {status}; fi')
    name = podman.one_off_name("shop", "backend-release")
    text = podman.one_off(application(service), service, command, name=name, release="r2", options=["--interactive"])
    done = sh(moved(text, APP, home), path=programs.path)
    assert (done.returncode, done.stderr) == (status, "")
    return [call[1:] for call in programs.calls("podman")]


def test_one_off_replaces_an_earlier_one_and_is_removed(programs: Programs, tmp_path: Path) -> None:
    removed, words = run_once(programs, tmp_path / "home", backend(), "migrate")

    assert removed == ["rm", "--force", "--ignore", "--time", "4", "shop-backend-release"]
    assert (after(words, "--name"), "--rm" in words) == (["shop-backend-release"], True)


def test_one_off_command_arrives_unchanged(programs: Programs, tmp_path: Path) -> None:
    *_, words = run_once(programs, tmp_path / "home", backend(), *HOSTILE)

    pinned = f"registry.test:5000/shop/backend@{image('backend').digest}"
    assert words[words.index(pinned) :] == [pinned, *HOSTILE]
    assert not list(tmp_path.rglob("pwned"))


def test_one_off_exits_with_the_status_of_the_command(programs: Programs, tmp_path: Path) -> None:
    assert run_once(programs, tmp_path / "home", backend(), "migrate", status=7)


def test_one_off_has_what_the_service_has_except_port_alias_and_restarts(programs: Programs, tmp_path: Path) -> None:
    candidate = run(programs, tmp_path / "candidate", backend())
    *_, words = run_once(programs, tmp_path / "home", backend())

    for option in ("--volume", "--memory", "--cpus", "--network", "--cap-drop", "--security-opt", "--stop-timeout"):
        assert after(words, option) == after(candidate, option) != []
    own = Path(after(words, "--env-file")[0]).relative_to(tmp_path / "home")
    assert own == Path(after(candidate, "--env-file")[0]).relative_to(tmp_path / "candidate")
    assert not {"--publish", "--network-alias", "--restart", "--detach"} & set(words)
    assert (after(words, "--log-driver"), "--interactive" in words) == (["none"], True)


def test_one_off_labels_name_no_color(programs: Programs, tmp_path: Path) -> None:
    *_, words = run_once(programs, tmp_path / "home", backend())

    labels = dict(label.split("=", 1) for label in after(words, "--label"))
    assert labels == {
        "rolling.app": "shop",
        "rolling.environment": "production",
        "rolling.release": "r2",
        "rolling.one-off": "backend",
    }


@pytest.mark.parametrize(("entrypoint", "given"), [(None, []), ((), [""]), (("sh", "-c"), ['["sh", "-c"]'])])
def test_one_off_entrypoint(
    entrypoint: tuple[str, ...] | None, given: list[str], programs: Programs, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    programs.add("podman")
    name = podman.one_off_name("shop", "backend-release")
    text = podman.one_off(APP, backend(), ["migrate"], name=name, entrypoint=entrypoint)
    sh(moved(text, APP, tmp_path / "home"), path=programs.path)

    assert after(programs.calls("podman")[-1], "--entrypoint") == given


def test_one_off_has_the_entrypoint_of_its_service(programs: Programs, tmp_path: Path) -> None:
    *_, words = run_once(programs, tmp_path / "home", backend(entrypoint=("/bin/start",)), "migrate")

    assert after(words, "--entrypoint") == ['["/bin/start"]']


PEM = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0IG1hdGVyaWFs\n  $(touch pwned) 'x' \\n\n-----END PRIVATE KEY-----\n"
#: A `podman run` that saves the variables that it takes from its own environment by their names.
SAVE_VALUES = """\
if [ "$1" = run ]; then
  while [ $# -gt 0 ]; do
    if [ "$1" = --env ]; then printenv "$2" > "SAVED/$2"; fi
    shift
  done
fi"""


def saved_values(programs: Programs, tmp_path: Path, service: Service) -> dict[str, str]:
    """Start a candidate and return the values that Podman takes from its own environment."""
    saved = tmp_path / "saved"
    saved.mkdir(exist_ok=True)
    (tmp_path / "home").mkdir(exist_ok=True)
    programs.add("podman", SAVE_VALUES.replace("SAVED", str(saved)))
    text = moved(podman.run(application(service), service, Color.GREEN, "r2"), APP, tmp_path / "home")
    done = sh(text, path=programs.path)
    assert (done.returncode, done.stderr) == (0, "")
    return {file.name: file.read_bytes().decode().removesuffix("\n") for file in saved.iterdir()}


@pytest.mark.parametrize(
    "value", [PEM, PEM.rstrip("\n"), "a\r\nb", "\n", "two\n\n\n", *(v for v in HOSTILE if "\n" in v)]
)
def test_run_passes_a_value_of_several_lines_unchanged(value: str, programs: Programs, tmp_path: Path) -> None:
    service = backend(env=(("TLS_KEY", value), ("LEVEL", "info")))

    assert saved_values(programs, tmp_path, service) == {"TLS_KEY": value}
    words = next(call for call in programs.calls("podman") if call[1] == "run")
    assert after(words, "--env") == ["TLS_KEY"]
    assert Path(after(words, "--env-file")[0]).read_text() == "LEVEL=info\n"
    assert not list(tmp_path.rglob("pwned"))


def test_run_of_a_recorded_release_passes_the_values_that_the_host_kept(programs: Programs, tmp_path: Path) -> None:
    service = backend(env=(("TLS_KEY", PEM),))
    saved_values(programs, tmp_path, service)
    app = parse_definition(dump_definition(application(service)), APP.home)

    assert saved_values(programs, tmp_path, app.service("backend")) == {"TLS_KEY": PEM}


def test_run_mounts_secret_files_that_only_the_deploy_user_and_the_container_can_read(
    programs: Programs, tmp_path: Path
) -> None:
    words = run(
        programs, tmp_path / "home", backend(mounts=(), secret_files=(SecretFile("CERT", "/run/secrets/CERT", PEM),))
    )

    source, target, mode = after(words, "--volume")[0].split(":")
    assert (target, mode) == ("/run/secrets/CERT", "ro")
    file = Path(source)
    assert file.read_text() == PEM
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_run_script_masks_values_of_several_lines_and_secret_files() -> None:
    service = backend(env=(("TLS_KEY", PEM),), secret_files=(SecretFile("CERT", "/c", f"{PEM}2"),))

    text = podman.run(APP, service, Color.BLUE, "r2")

    assert len(text.secrets) == 2
    assert not any(secret in text.masked for secret in text.secrets)


def test_spec_hash_changes_with_the_content_of_a_secret_file() -> None:
    hashes = [
        podman.spec_hash("shop", backend(secret_files=files))
        for files in (
            (),
            (SecretFile("CERT", "/c", "a"),),
            (SecretFile("CERT", "/c", "b"),),
            (SecretFile("CERT", "/d", "a"),),
        )
    ]

    assert len(set(hashes)) == 4


def test_definition_of_a_release_contains_no_secret_file() -> None:
    app = application(backend(secret_files=(SecretFile("CERT", "/c", PEM),)))
    text = dump_definition(app)

    assert "PRIVATE KEY" not in text
    assert parse_definition(text, app.home).service("backend").secret_files == (SecretFile("CERT", "/c"),)


def test_one_off_gets_values_of_several_lines(programs: Programs, tmp_path: Path) -> None:
    service = backend(env=(("TLS_KEY", PEM),))
    (tmp_path / "home").mkdir()
    programs.add("podman", 'if [ "$1" = run ]; then printf %s "$TLS_KEY"; fi')
    text = moved(
        podman.one_off(application(service), service, ["migrate"], name="shop-release"), APP, tmp_path / "home"
    )

    assert sh(text, path=programs.path).stdout == PEM


def test_run_worker_publishes_no_port_and_passes_its_command(programs: Programs, tmp_path: Path) -> None:
    words = run(programs, tmp_path / "home", worker(command=("it's", "$HOME", "")))

    assert "--publish" not in words
    assert words[-3:] == ["it's", "$HOME", ""]
    assert "rolling.port=0" in after(words, "--label")


@pytest.mark.parametrize(
    ("entrypoint", "expected"), [(None, []), ((), [""]), (("sh", "-c", 'a "b"'), ['["sh", "-c", "a \\"b\\""]'])]
)
def test_run_passes_the_entrypoint(
    entrypoint: tuple[str, ...] | None, expected: list[str], programs: Programs, tmp_path: Path
) -> None:
    words = run(programs, tmp_path / "home", worker(entrypoint=entrypoint))

    assert after(words, "--entrypoint") == expected


def test_run_exclusive_service_has_its_alias_from_the_start(programs: Programs, tmp_path: Path) -> None:
    service = worker(alias="queue", handoff=Handoff.EXCLUSIVE)

    assert after(run(programs, tmp_path / "home", service), "--network-alias") == ["worker-green", "queue"]
    assert podman.give_alias(APP, service, Color.GREEN, "address") == ""


def test_spec_hash_covers_command_and_entrypoint_but_not_how_a_service_is_checked() -> None:
    plain = worker(command=())
    hashes = {podman.spec_hash("shop", service) for service in (plain, worker(), worker(entrypoint=()))}

    assert len(hashes) == 3
    checked = replace(plain, handoff=Handoff.EXCLUSIVE, gate=replace(plain.gate, ready=("true",)))
    assert podman.spec_hash("shop", checked) == podman.spec_hash("shop", plain)


def test_definition_of_a_release_keeps_the_worker() -> None:
    service = worker(entrypoint=("python3",), handoff=Handoff.EXCLUSIVE)
    app = application(service)

    [found] = parse_definition(dump_definition(app), app.home).services

    assert (found.command, found.entrypoint, found.handoff) == (service.command, ("python3",), Handoff.EXCLUSIVE)


def test_one_off_without_a_command_runs_that_of_the_service(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    programs.add("podman")

    sh(moved(podman.one_off(APP, worker(), (), name="shop-worker-run"), APP, tmp_path / "home"), path=programs.path)

    assert programs.calls("podman")[-1][-2:] == ["celery", "worker"]


def stop_other(programs: Programs, *states: str, exists: int = 0) -> list[list[str]] | None:
    """Stop the other color, whose container has these states one after the other. None if that fails."""
    state = programs.sequence("podman", list(states))
    programs.add("podman", f'case "$2" in exists) exit {exists} ;; inspect) {state} ;; esac')
    done = sh(script(podman.stop_other(APP, worker(handoff=Handoff.EXCLUSIVE), Color.GREEN)), path=programs.path)
    return programs.calls("podman") if done.returncode == 0 else None


def test_stop_other_stops_the_other_color_until_podman_has_ended_its_restarts(programs: Programs) -> None:
    calls = stop_other(programs, "running", "stopped", "exited")

    assert calls is not None
    stops = [call for call in calls if call[1] == "stop"]
    assert stops == [["podman", "stop", "--ignore", "--time", "4", "shop-worker-blue"]] * 3


def test_stop_other_ignores_a_missing_container(programs: Programs) -> None:
    assert stop_other(programs, "", exists=1) == [["podman", "container", "exists", "shop-worker-blue"]]


@pytest.mark.parametrize("state", ["running", "stopped", "paused", "stopping", ""])
def test_stop_other_fails_for_a_container_that_may_run(state: str, programs: Programs) -> None:
    assert stop_other(programs, state) is None


def test_stop_other_fails_if_podman_does_not_answer(programs: Programs) -> None:
    assert stop_other(programs, "", exists=125) is None


def test_start_alone_of_an_overlapping_service_only_starts() -> None:
    assert podman.start_alone(APP, worker(), Color.BLUE) == "podman start shop-worker-blue >/dev/null"
