"""What a monitoring host has: Debian's Prometheus with its companions, on loopback, and the parts of each environment.

Items only; it runs nothing. A configuration that somebody wrote by hand is left alone and told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fabfile.commands.item import Item, file, owned, same
from fabfile.commands.shell import Script, quote, script, words, write_file
from fabfile.commands.system import install, possible

_ETC = "/etc/prometheus"
_PARTS = f"{_ETC}/rolling"
PROGRAM = "/usr/local/lib/rolling-observe/observe"
#: Each program's unit with what makes it listen on loopback alone: none of them asks who it talks to.
_FLAGS = {
    "prometheus": "--web.listen-address=127.0.0.1:9090",
    "prometheus-alertmanager": "--web.listen-address=127.0.0.1:9093 --cluster.listen-address=",
    "prometheus-blackbox-exporter": "--web.listen-address=127.0.0.1:9115",
}
#: Theirs, and the one for a cluster of Alertmanagers, which is off.
_PORTS = "9090|9093|9094|9115"
_PACKAGES = (*_FLAGS, "prometheus-node-exporter")
_PROGRAMS = (*_PACKAGES, "promtool", "amtool", "curl")
#: Whose file each program's configuration is, as Debian brings it.
_FILES = {
    "prometheus.yml": "prometheus",
    "alertmanager.yml": "prometheus-alertmanager",
    "blackbox.yml": "prometheus-blackbox-exporter",
}
_MARK = "^# rolling-observe:"


def items(name: str, program: str, heads: Mapping[str, str], parts: Mapping[str, str]) -> tuple[Item, ...]:
    """Everything that watches one environment. `parts` hold the secrets of its channels."""
    return (_own_files(), _packages(), _loopback(), _program(program), *_heads(heads), _environment(name, parts))


def gone(name: str) -> tuple[Item, ...]:
    """What takes one environment off its monitoring host; the programs stay, and what they recorded.

    Where an earlier run was cut off, its parts lie aside, or were only laid down.
    """
    folder = f"{_PARTS}/{name}"
    places = (folder, f"{_PARTS}/.staged/{name}", f"{_PARTS}/.aside/was/{name}", f"{_PARTS}/.aside/none/{name}")
    test = " && ".join(words("test", "!", "-e", place) for place in places)
    return (Item("environment", f"what watches it ({folder})", test, script(words(PROGRAM, "remove", name))),)


def _own_files() -> Item:
    """Source: dpkg-query(1): Conffiles lists each with the MD5 sum of the text that its package brought."""
    tests = []
    for name, package in _FILES.items():
        path = quote(f"{_ETC}/{name}")
        brought = f"dpkg-query -W -f '${{Conffiles}}\\n' {package} | grep -qF \" {_ETC}/{name} $(md5sum < {path} | cut -d ' ' -f 1)\""
        tests.append(f"{{ ! test -e {path} || head -n 1 {path} | grep -q {quote(_MARK)} || {brought}; }}")
    title = f"{', '.join(_FILES)} in {_ETC}, which nobody wrote by hand"
    remedy = (
        "a configuration of your own is there: move it away, or let it be and add to it what inv observe.render writes"
    )
    return Item("own files", title, " && ".join(tests), None, remedy)


def _packages() -> Item:
    test = " && ".join(words("command", "-v", name) for name in _PROGRAMS)
    apply = script(install((*_PACKAGES, "curl")))
    remedy = f"this is no Debian or Ubuntu: install what brings {', '.join(_PROGRAMS)}"
    return Item("packages", f"packages: {', '.join(_PACKAGES)}", test, apply, remedy, possible=possible())


def _loopback() -> Item:
    """Source: systemd.service(5): an empty ExecStart= forgets the one before; Debian's units read ARGS from a file."""
    drop_ins = {
        f"/etc/systemd/system/{unit}.service.d/rolling-observe.conf": (
            f"# Made by inv observe.install.\n[Service]\nExecStart=\nExecStart=/usr/bin/{unit} {flags} $ARGS\n"
        )
        for unit, flags in _FLAGS.items()
    }
    defaults = " ".join(f"/etc/default/{unit}" for unit in _FLAGS)
    clear = f"! grep -qs '^[^#]*listen-address' {defaults}"
    test = " && ".join([*(same(path, text) for path, text in drop_ins.items()), *_on_loopback(), clear])
    writes = [
        part
        for path, text in drop_ins.items()
        for part in (words("mkdir", "-p", path.rpartition("/")[0]), write_file(path, text, mode="0644"))
    ]
    units = " ".join(_FLAGS)
    apply = script(*writes, f"systemctl daemon-reload\nsystemctl enable --quiet {units}\nsystemctl restart {units}")
    title = "Prometheus (9090), Alertmanager (9093) and blackbox-exporter (9115) on loopback alone"
    return Item("loopback", title, test, apply, f"take the listen-address out of {defaults}", possible=clear)


def _on_loopback() -> Iterator[str]:
    """Shell conditions: each program is on, and none listens as it did before a restart that was cut off.

    Source: systemctl(1): of several units is-active and is-enabled are content with one.
    """
    for unit in _FLAGS:
        yield f"systemctl is-active --quiet {unit} && systemctl is-enabled --quiet {unit}"
    yield f"! ss -Hltn | awk '{{ print $4 }}' | grep -E ':({_PORTS})$' | grep -qv '^127[.]0[.]0[.]1:'"


def _program(text: str) -> Item:
    return file("program", f"the program that puts their files together ({PROGRAM})", PROGRAM, text, "755")


def _heads(heads: Mapping[str, str]) -> tuple[Item, ...]:
    """The group is given when the files are taken into use, together with that of the parts."""
    test = " && ".join(same(f"{_PARTS}/{name}", text) for name, text in heads.items())
    writes = [write_file(f"{_PARTS}/{name}", text, mode="0640") for name, text in heads.items()]
    apply = script(words("install", "-d", "-g", "prometheus", "-m", "750", _PARTS), *writes)
    return (Item("heads", f"the common parts of their files ({_PARTS})", test, apply),)


def _environment(name: str, parts: Mapping[str, str]) -> Item:
    """All of it or nothing: the program puts back what was there where a file is not taken."""
    folder, staged = f"{_PARTS}/{name}", f"{_PARTS}/.staged/{name}"
    tests = [same(f"{folder}/{part}", text) for part, text in parts.items()]
    tests += [owned(f"{folder}/receivers.yml", "root 640"), words(PROGRAM, "check")]
    writes = [write_file(f"{staged}/{part}", text, mode="0640", secret=_secret(part)) for part, text in parts.items()]
    lay: list[str | Script] = [words("rm", "-rf", staged), words("mkdir", "-p", staged), words("chmod", "750", staged)]
    apply = script(*lay, *writes, words(PROGRAM, "install", name))
    title = f"what watches {name}: targets, alerts, routes ({folder}), in use"
    return Item("environment", title, " && ".join(tests), apply)


def _secret(part: str) -> bool:
    return part == "receivers.yml"
