"""What is and is not well with a host, each with its remedy. Pure; it asks nothing.

What a deploy would refuse is what its own preflight finds, by the same function. Everything else is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fabfile.commands.nginx import site_helper
from fabfile.model import Application, Diagnosis, HostState, Level
from fabfile.plans import preflight

#: The oldest versions that everything is proved on.
OLDEST = {"podman": (4, 3), "nginx": (1, 22), "curl": (7, 84)}
#: How far a host's clock may be off before records and leases mislead.
CLOCK_SECONDS = 5.0
CERTIFICATE_DAYS = 21
_SETUP = "Run inv setup for this host"
#: Source: podman(1), rootless mode: a range of 65,536 subordinate ids.
_IDS = 65_536


@dataclass(frozen=True)
class Asked:
    """What was found beyond the observation; the host's clock stood at `facts['clock']` between two moments of ours."""

    facts: Mapping[str, str]
    before: float
    after: float
    helper_sum: str = ""
    boot_sum: str = ""

    def get(self, name: str) -> str:
        """A named fact ('' when it was not found)."""
        return self.facts.get(name, "")


def diagnose(state: HostState, app: Application, asked: Asked) -> tuple[Diagnosis, ...]:
    """Every check of one host, well or not, what a deploy would refuse first."""
    refused = [
        Diagnosis(state.host, Level.REFUSED, finding.problem, finding.remedy)
        for finding in preflight.findings(state, app)
    ]
    if not refused:
        refused = [Diagnosis(state.host, Level.OK, "fit for a deploy: tools, directories, rights, ports, names, space")]
    checks = (_versions, _storage, _identities, _rights, _programs, _clock, _nginx, _certificate, _upkeep)
    rest = [Diagnosis(state.host, *row) for check in checks for row in check(state, app, asked)]
    return (*refused, *rest)


Row = tuple[Level, str, str]


def _well(what: str) -> Row:
    return Level.OK, what, ""


def _versions(state: HostState, _: Application, asked: Asked) -> Iterator[Row]:
    found = {
        "podman": state.fact("podman"),
        "nginx": asked.get("nginx_version"),
        "curl": asked.get("curl_version"),
    }
    old = [name for name, text in found.items() if text and _version(text) < OLDEST[name]]
    for name in old:
        oldest = ".".join(str(part) for part in OLDEST[name])
        yield Level.WARNING, f"{name} {found[name]} is older than {oldest}", f"Upgrade {name}: nothing older is tested"
    if not old:
        yield _well(f"{state.fact('os')}, " + ", ".join(f"{name} {text}" for name, text in found.items() if text))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _storage(_: HostState, app: Application, asked: Asked) -> Iterator[Row]:
    driver, cgroups, controllers = [*asked.get("podman_info").split(" "), "", "", ""][:3]
    if driver == "vfs":
        remedy = 'Set driver = "overlay" in ~/.config/containers/storage.conf; changing it means podman system reset'
        yield Level.WARNING, "Podman stores images with vfs: each container copies its whole image", remedy
    elif driver:
        yield _well(f"Podman stores images with {driver}")
    limits = {"memory": any(s.memory_bytes for s in app.services), "cpu": any(s.cpus for s in app.services)}
    missing = [name for name, wanted in limits.items() if wanted and name not in controllers.split(",")]
    if driver and cgroups != "v2":
        yield Level.WARNING, f"cgroup {cgroups}: limits of rootless containers are ignored", "Boot with cgroup v2"
    elif driver and missing:
        remedy = "Delegate them: Delegate=cpu memory pids in a drop-in of user@.service"
        yield Level.WARNING, f"the limits of {' and '.join(missing)} are ignored: not delegated to the user", remedy


def _identities(_: HostState, __: Application, asked: Asked) -> Iterator[Row]:
    for kind in ("subuid", "subgid"):
        if not asked.get(kind).isdigit() or int(asked.get(kind)) < _IDS:
            remedy = f"usermod --add-{kind}s 100000-165535 USER as root, then podman system migrate as that user"
            yield Level.WARNING, f"{kind}: {asked.get(kind) or 'no'} ids, {_IDS} needed", remedy
    if asked.get("manager") not in {"running", "degraded", "starting"}:
        yield Level.WARNING, "the user's systemd manager does not answer", "systemctl restart user@UID as root"


def _rights(_: HostState, app: Application, asked: Asked) -> Iterator[Row]:
    helper = site_helper(app.name)
    granted = [entry.strip() for entry in asked.get("sudo").replace("NOPASSWD:", "").split(",") if entry.strip()]
    others = [entry for entry in granted if entry not in {f"{helper} install", f"{helper} restore"}]
    foreign = [entry for entry in others if not re.fullmatch(r"/usr/local/lib/[^/ ]+/site (install|restore)", entry)]
    if foreign:
        remedy = "A deploy needs the site helper alone: take the rest out of /etc/sudoers.d"
        yield Level.WARNING, f"sudo allows more than the site helper: {', '.join(foreign)}", remedy
    else:
        yield _well("sudo allows the site helper and nothing more")


def _programs(_: HostState, app: Application, asked: Asked) -> Iterator[Row]:
    drifted = [
        name
        for name, wanted, found in (
            ("site helper", asked.helper_sum, asked.get("helper_sum")),
            ("boot program", asked.boot_sum, asked.get("boot_sum")),
        )
        if wanted and wanted != found
    ]
    if drifted:
        yield Level.WARNING, f"the {' and the '.join(drifted)} differ from this clone's", _SETUP
    if asked.get("boot_unit") not in {"enabled", "linked"}:
        yield Level.WARNING, f"{app.name}-boot.service is not enabled: nothing would start after a reboot", _SETUP
    if not drifted and asked.get("boot_unit") in {"enabled", "linked"}:
        yield _well("the installed programs are those of this clone, the boot unit is enabled")


def _clock(_: HostState, __: Application, asked: Asked) -> Iterator[Row]:
    try:
        now = float(asked.get("clock"))
    except ValueError:
        return
    off = asked.before - now if now < asked.before else now - asked.after if now > asked.after else 0.0
    if off > CLOCK_SECONDS:
        way = "behind" if now < asked.before else "ahead of"
        yield Level.WARNING, f"its clock is at least {off:.0f} s {way} this machine's", "timedatectl set-ntp true"
    elif asked.get("synchronised") == "no":
        yield Level.WARNING, "its clock is right and is not synchronised", "timedatectl set-ntp true"
    else:
        yield _well("its clock is right")


def _nginx(state: HostState, app: Application, _: Asked) -> Iterator[Row]:
    if state.fact("nginx_active") != "active":
        return
    named = state.site.partition("\n")[0].rpartition(" ")[2]
    if state.site and named != state.live_site_hash:
        remedy = "nginx -t && systemctl reload nginx as root; its error log says what it refuses"
        yield Level.WARNING, "Nginx does not run the site that is installed", remedy
    if state.site and named == state.live_site_hash and not state.fact("closed"):
        yield _well("Nginx runs the installed site and reaches the flags")
    if state.fact("maintenance"):
        yield (
            Level.WARNING,
            "the maintenance page is up",
            f"inv maintenance off --env {app.environment} when it is over",
        )


def _certificate(state: HostState, app: Application, asked: Asked) -> Iterator[Row]:
    if app.tls is None:
        return
    found = asked.get("certificate")
    if not found.isdigit():
        yield Level.WARNING, f"{app.tls.certificate} could not be looked at: {found}", "Look as root: openssl x509"
        return
    days = (int(found) - state.now) // 86_400
    if days < 0:
        yield Level.WARNING, f"the certificate expired {-days} days ago", "Renew it and reload Nginx"
    elif days < CERTIFICATE_DAYS:
        yield Level.WARNING, f"the certificate ends in {days} days", "Renew it and reload Nginx"
    if "NOT match" in asked.get("certificate_name"):
        yield Level.WARNING, f"the certificate is not for {app.domain}", "Install one with that name"
    elif days >= CERTIFICATE_DAYS:
        yield _well(f"the certificate is for {app.domain} and ends in {days} days")


def _upkeep(state: HostState, _: Application, asked: Asked) -> Iterator[Row]:
    if asked.get("reboot") == "yes":
        yield Level.WARNING, "it waits for a reboot", "Reboot it when convenient: the boot unit starts what serves"
    if asked.get("auth_info") == "no":
        problem = "sshd does not tell which key logged in: the history cannot name it"
        yield Level.WARNING, problem, f"{_SETUP}, which sets ExposeAuthInfo"
    if state.lock is not None and state.lock.expires_at > state.now:
        problem = f"{state.lock.owner} holds the lock: {state.lock.reason}"
        yield Level.REFUSED, problem, "Wait for it; until then a deploy ends with exit 4 (inv lock.status)"
