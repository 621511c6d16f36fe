"""The resources of a monitoring host: Debian's Prometheus, Alertmanager and blackbox-exporter, and each environment's parts.

A configuration written by hand is left unchanged, and reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rolling_upgrade.engine.resource import Resource, file, has_content, has_mode, is_absent
from rolling_upgrade.engine.shell import quote, script, shell_join, write_file
from rolling_upgrade.errors import PROGRAM
from rolling_upgrade.features.setup.system import install_packages, is_installable, python

_ETC = "/etc/prometheus"
_PARTS = f"{_ETC}/rolling"
HOST_PROGRAM = "/usr/local/lib/rolling-observe/observe"
#: The flags that make each unit listen on loopback only: the programs have no authentication.
_FLAGS = {
    "prometheus": "--web.listen-address=127.0.0.1:9090",
    "prometheus-alertmanager": "--web.listen-address=127.0.0.1:9093 --cluster.listen-address=",
    "prometheus-blackbox-exporter": "--web.listen-address=127.0.0.1:9115",
}
#: The ports of these programs, and Alertmanager's cluster port: cluster mode is disabled.
_PORTS = "9090|9093|9094|9115"
_PACKAGES = (*_FLAGS, "prometheus-node-exporter")
_PROGRAMS = (*_PACKAGES, "promtool", "amtool", "curl")
#: The Debian package of each configuration file.
_FILES = {
    "prometheus.yml": "prometheus",
    "alertmanager.yml": "prometheus-alertmanager",
    "blackbox.yml": "prometheus-blackbox-exporter",
}
_MARK = "^# rolling-observe:"


def resources(name: str, program: str, heads: Mapping[str, str], parts: Mapping[str, str]) -> tuple[Resource, ...]:
    """The resources that monitor one environment. `parts` contain the secrets of its channels."""
    title = f"the program that assembles their files ({HOST_PROGRAM})"
    installed = file("program", title, HOST_PROGRAM, program, "755")
    return (python(), _own_files(), _packages(), _loopback(), installed, _heads(heads), _environment(name, parts))


def removal(name: str) -> tuple[Resource, ...]:
    """The resource that removes one environment; the programs and the recorded data stay.

    It also removes parts that an interrupted run left in the staging or backup directory.
    """
    directory = f"{_PARTS}/{name}"
    places = (directory, f"{_PARTS}/.staged/{name}", f"{_PARTS}/.aside/was/{name}", f"{_PARTS}/.aside/none/{name}")
    remove = script(shell_join(HOST_PROGRAM, "remove", name))
    return (Resource("environment", f"monitoring of the environment ({directory})", is_absent(*places), remove),)


def _own_files() -> Resource:
    """Source: dpkg-query(1): Conffiles lists each file with the MD5 sum of the package's version."""
    tests = []
    for name, package in _FILES.items():
        path = quote(f"{_ETC}/{name}")
        packaged = f"dpkg-query -W -f '${{Conffiles}}\\n' {package} | grep -qF \" {_ETC}/{name} $(md5sum < {path} | cut -d ' ' -f 1)\""
        tests.append(f"{{ ! test -e {path} || head -n 1 {path} | grep -q {quote(_MARK)} || {packaged}; }}")
    title = f"{', '.join(_FILES)} in {_ETC}, not written by hand"
    remedy = f"a file was edited by hand: move it, or keep it and add the output of {PROGRAM} observe.render to it"
    return Resource("own files", title, " && ".join(tests), None, remedy)


def _packages() -> Resource:
    test = " && ".join(shell_join("command", "-v", name) for name in _PROGRAMS)
    apply = script(install_packages((*_PACKAGES, "curl")))
    remedy = f"this host is not Debian or Ubuntu: install {', '.join(_PROGRAMS)} by hand"
    return Resource("packages", f"packages: {', '.join(_PACKAGES)}", test, apply, remedy, possible=is_installable())


def _loopback() -> Resource:
    """Source: systemd.service(5): an empty ExecStart= resets the command. Debian's units read ARGS from a file."""
    drop_ins = {
        f"/etc/systemd/system/{unit}.service.d/rolling-observe.conf": (
            f"# Made by inv observe.install.\n[Service]\nExecStart=\nExecStart=/usr/bin/{unit} {flags} $ARGS\n"
        )
        for unit, flags in _FLAGS.items()
    }
    defaults = " ".join(f"/etc/default/{unit}" for unit in _FLAGS)
    clear = f"! grep -qs '^[^#]*listen-address' {defaults}"
    test = " && ".join([*(has_content(path, text) for path, text in drop_ins.items()), *_on_loopback(), clear])
    writes = [
        part
        for path, text in drop_ins.items()
        for part in (shell_join("mkdir", "-p", path.rpartition("/")[0]), write_file(path, text, mode="0644"))
    ]
    units = " ".join(_FLAGS)
    apply = script(*writes, f"systemctl daemon-reload\nsystemctl enable --quiet {units}\nsystemctl restart {units}")
    title = "Prometheus (9090), Alertmanager (9093) and blackbox-exporter (9115) on loopback only"
    return Resource("loopback", title, test, apply, f"remove the listen-address from {defaults}", possible=clear)


def _on_loopback() -> Iterator[str]:
    """Shell conditions: each unit is active and enabled, and no program listens outside loopback after a failed restart.

    Source: systemctl(1): for several units, is-active and is-enabled succeed if one of them is.
    """
    for unit in _FLAGS:
        yield f"systemctl is-active --quiet {unit} && systemctl is-enabled --quiet {unit}"
    yield f"! ss -Hltn | awk '{{ print $4 }}' | grep -E ':({_PORTS})$' | grep -qv '^127[.]0[.]0[.]1:'"


def _heads(heads: Mapping[str, str]) -> Resource:
    """The program sets the group of the files when it installs the parts."""
    test = " && ".join(has_content(f"{_PARTS}/{name}", text) for name, text in heads.items())
    writes = [write_file(f"{_PARTS}/{name}", text, mode="0640") for name, text in heads.items()]
    apply = script(shell_join("install", "-d", "-g", "prometheus", "-m", "750", _PARTS), *writes)
    return Resource("heads", f"the common parts of the files ({_PARTS})", test, apply)


def _environment(name: str, parts: Mapping[str, str]) -> Resource:
    """Atomic: if a program rejects its file, the installed program restores the previous parts."""
    directory, staged = f"{_PARTS}/{name}", f"{_PARTS}/.staged/{name}"
    tests = [has_content(f"{directory}/{part}", text) for part, text in parts.items()]
    tests += [has_mode(f"{directory}/receivers.yml", "root 640"), shell_join(HOST_PROGRAM, "check")]
    apply = script(
        shell_join("rm", "-rf", staged),
        shell_join("mkdir", "-p", staged),
        shell_join("chmod", "750", staged),
        *(
            write_file(f"{staged}/{part}", text, mode="0640", secret=part in {"module.yml", "receivers.yml"})
            for part, text in parts.items()
        ),
        shell_join(HOST_PROGRAM, "install", name),
    )
    title = f"monitoring of {name}: targets, alerts, routes ({directory})"
    return Resource("environment", title, " && ".join(tests), apply)
