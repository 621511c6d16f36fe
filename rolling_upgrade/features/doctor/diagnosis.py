"""Read the facts of a host in one round trip, and diagnose them: each finding with its remedy.

A finding is REFUSED when the preflight of a deploy refuses it, by the same function. Every other finding is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rolling_upgrade.engine import accessory, jobs, observation, preflight, untrusted
from rolling_upgrade.engine.model import Application, Diagnosis, HostState, Level, Tls
from rolling_upgrade.engine.nginx import site_helper
from rolling_upgrade.engine.shell import Script, direct, quote, shell_join
from rolling_upgrade.errors import PROGRAM

#: The oldest tested versions.
OLDEST = {"podman": (4, 3), "nginx": (1, 22), "curl": (7, 84)}
#: The largest tolerable clock offset: a larger one makes records and leases misleading.
CLOCK_SECONDS = 5.0
CERTIFICATE_DAYS = 21
_SETUP = f"Run {PROGRAM} setup for this host"
#: Source: podman(1), rootless mode: a range of 65,536 subordinate ids.
_IDS = 65_536
_MARK = "@@doctor"


def fact_script(app: Application) -> Script:
    """Print an observation and further facts."""
    return direct(observation.shell_text(app, version=True), _facts(app))


def _facts(app: Application) -> str:
    helper = site_helper(app.name)
    boot = helper.rpartition("/")[0] + "/boot"
    info = "{{.Store.GraphDriverName}} {{.Host.CgroupsVersion}} {{range .Host.CgroupControllers}}{{.}},{{end}}"
    return f"""\
echo {_MARK}
fact clock "$(date +%s.%N)"
fact nginx_version "$(nginx -v 2>&1 | sed 's/.*nginx.//')"
fact curl_version "$(curl --version 2>/dev/null | awk '{{ print $2; exit }}')"
fact podman_info "$({shell_join("podman", "info", "--format", info)} 2>/dev/null)"
fact subuid "$(awk -F : -v user="$(id -un)" '$1 == user {{ sum += $3 }} END {{ print sum + 0 }}' /etc/subuid 2>/dev/null)"
fact subgid "$(awk -F : -v user="$(id -un)" '$1 == user {{ sum += $3 }} END {{ print sum + 0 }}' /etc/subgid 2>/dev/null)"
fact manager "$(systemctl --user is-system-running 2>/dev/null || :)"
fact boot_unit "$(systemctl --user is-enabled {quote(app.name + "-boot.service")} 2>/dev/null || :)"
fact sudo "$(sudo -n -l 2>/dev/null | sed -n 's/^ *(\\([^)]*\\)) *\\(.*\\)/\\2/p' | tr '\\n' ',')"
fact boot_sum "$(sha256sum < {quote(boot)} 2>/dev/null | cut -d ' ' -f 1)"
fact synchronised "$(timedatectl show --property=NTPSynchronized --value 2>/dev/null || :)"
fact reboot "$(if [ -e /run/reboot-required ]; then echo yes; else echo no; fi)"
fact auth_info "$(if [ -n "${{SSH_USER_AUTH:-}}" ]; then echo yes; else echo no; fi)"
{_certificate_facts(app)}"""


def _certificate_facts(app: Application) -> str:
    if app.tls is None or not app.has_site:
        return ""
    path = quote(app.tls.certificate)
    names = "; ".join(f"openssl x509 -in {path} -noout -checkhost {quote(domain)}" for domain in app.domains)
    connect = shell_join("-connect", f"127.0.0.1:{app.https_port}", "-servername", app.domain)
    fingerprint = "openssl x509 -noout -sha256 -fingerprint"
    return f"""\
served=$(timeout 5 openssl s_client {connect} -showcerts </dev/null 2>/dev/null) || :
fact served "$(printf '%s\\n' "$served" | awk '/BEGIN CERTIFICATE/ {{ n++ }} /Verify return code/ {{ c = $4 }} END {{ print n + 0, c }}')"
fact served_print "$(printf '%s\\n' "$served" | {fingerprint} 2>/dev/null || :)"
fact certificate_print "$({fingerprint} -in {path} 2>/dev/null || :)"
if ! command -v openssl >/dev/null 2>&1; then fact certificate "no openssl"
elif [ ! -r {path} ]; then fact certificate unreadable
else
  fact certificate "$(date -d "$(openssl x509 -in {path} -noout -enddate 2>/dev/null | cut -d = -f 2)" +%s 2>/dev/null || echo damaged)"
  fact certificate_name "$({{ {names}; }} 2>/dev/null | tr '\\n' ' ' || :)"
fi"""


def parse_facts(output: str) -> dict[str, str]:
    """Parse the facts that follow the observation in the output of `fact_script`."""
    _, _, text = output.partition(f"{_MARK}\n")
    return {key: value.strip() for key, _, value in (row.partition("=") for row in untrusted.lines(text))}


@dataclass(frozen=True)
class HostFacts:
    """The facts beyond the observation; `before` and `after` bracket `facts['clock']` by this machine's clock."""

    facts: Mapping[str, str]
    before: float
    after: float
    site_hash: str = ""
    program_sum: str = ""
    boot_sum: str = ""

    def get(self, name: str) -> str:
        """Return a fact, or an empty string."""
        return self.facts.get(name, "")


def diagnose(state: HostState, app: Application, facts: HostFacts) -> tuple[Diagnosis, ...]:
    """Run every check of one host; the findings that a deploy would refuse come first."""
    refused = [
        Diagnosis(state.host, Level.REFUSED, finding.problem, finding.remedy)
        for finding in preflight.findings(state, app, site_hash=facts.site_hash, program_sum=lambda: facts.program_sum)
    ]
    if not refused:
        refused = [
            Diagnosis(state.host, Level.OK, "ready for a deploy: tools, directories, rights, ports, names, space")
        ]
    checks = (
        _versions,
        _storage,
        _identities,
        _rights,
        _programs,
        _clock,
        _nginx,
        _certificate,
        _accessories,
        _jobs,
        _upkeep,
    )
    rest = [Diagnosis(state.host, *row) for check in checks for row in check(state, app, facts)]
    return (*refused, *rest)


Row = tuple[Level, str, str]


def _ok(what: str) -> Row:
    return Level.OK, what, ""


def _warning(what: str, remedy: str) -> Row:
    return Level.WARNING, what, remedy


def _versions(state: HostState, _: Application, facts: HostFacts) -> Iterator[Row]:
    found = {"podman": state.fact("podman"), "nginx": facts.get("nginx_version"), "curl": facts.get("curl_version")}
    old = [name for name, text in found.items() if text and _version(text) < OLDEST[name]]
    for name in old:
        oldest = ".".join(str(part) for part in OLDEST[name])
        yield _warning(f"{name} {found[name]} is older than {oldest}", f"Upgrade {name}: older versions are not tested")
    if not old:
        yield _ok(f"{state.fact('os')}, " + ", ".join(f"{name} {text}" for name, text in found.items() if text))


def _version(text: str) -> tuple[int, ...]:
    return tuple(untrusted.integer(part, default=0) for part in re.findall(r"[0-9]+", text)[:2])


def _storage(_: HostState, app: Application, facts: HostFacts) -> Iterator[Row]:
    driver, cgroups, controllers = [*facts.get("podman_info").split(" "), "", "", ""][:3]
    if driver == "vfs":
        remedy = 'Set driver = "overlay" in ~/.config/containers/storage.conf; changing it means podman system reset'
        yield _warning("Podman stores images with vfs: each container copies its whole image", remedy)
    elif driver:
        yield _ok(f"Podman stores images with {driver}")
    limits = {"memory": any(s.memory_bytes for s in app.services), "cpu": any(s.cpus for s in app.services)}
    missing = [name for name, limited in limits.items() if limited and name not in controllers.split(",")]
    if driver and cgroups != "v2":
        yield _warning(f"cgroup {cgroups}: limits of rootless containers are ignored", "Boot with cgroup v2")
    elif driver and missing:
        remedy = "Delegate them: Delegate=cpu memory pids in a drop-in of user@.service"
        yield _warning(f"the limits of {' and '.join(missing)} are ignored: not delegated to the user", remedy)


def _identities(_: HostState, __: Application, facts: HostFacts) -> Iterator[Row]:
    for kind in ("subuid", "subgid"):
        if untrusted.integer(facts.get(kind), default=0) < _IDS:
            remedy = f"usermod --add-{kind}s 100000-165535 USER as root, then podman system migrate as that user"
            yield _warning(f"{kind}: {facts.get(kind) or 'no'} ids, {_IDS} needed", remedy)
    if facts.get("manager") not in {"running", "degraded", "starting"}:
        yield _warning("the user's systemd manager does not answer", "systemctl restart user@UID as root")


def _rights(_: HostState, app: Application, facts: HostFacts) -> Iterator[Row]:
    helper = site_helper(app.name)
    granted = [entry.strip() for entry in facts.get("sudo").replace("NOPASSWD:", "").split(",") if entry.strip()]
    others = [entry for entry in granted if entry not in {f"{helper} install", f"{helper} restore"}]
    foreign = [entry for entry in others if not re.fullmatch(r"/usr/local/lib/[^/ ]+/site (install|restore)", entry)]
    if foreign:
        remedy = "A deploy needs only the site helper: delete the other rules from /etc/sudoers.d"
        yield _warning(f"sudo allows more than the site helper: {', '.join(foreign)}", remedy)
    else:
        yield _ok("sudo allows only the site helper" if app.has_site else "sudo allows nothing else")


def _programs(state: HostState, app: Application, facts: HostFacts) -> Iterator[Row]:
    drifted = [
        name
        for name, expected, current in (
            ("site helper", facts.program_sum if app.has_site else "", state.fact("helper_sum")),
            ("boot program", facts.boot_sum, facts.get("boot_sum")),
        )
        if expected and expected != current
    ]
    if drifted:
        yield _warning(f"the host has another version of the {' and the '.join(drifted)}", _SETUP)
    if facts.get("boot_unit") not in {"enabled", "linked"}:
        yield _warning(f"{app.name}-boot.service is not enabled: no container would start after a reboot", _SETUP)
    if not drifted and facts.get("boot_unit") in {"enabled", "linked"}:
        yield _ok("the installed programs match this clone, and the boot unit is enabled")


def _clock(_: HostState, __: Application, facts: HostFacts) -> Iterator[Row]:
    now = untrusted.moment(facts.get("clock"), default=None)
    if now is None:
        return
    offset = facts.before - now if now < facts.before else now - facts.after if now > facts.after else 0.0
    if offset > CLOCK_SECONDS:
        direction = "behind" if now < facts.before else "ahead of"
        yield _warning(f"its clock is at least {offset:.0f} s {direction} this machine's", "timedatectl set-ntp true")
    elif facts.get("synchronised") == "no":
        yield _warning("its clock is right, but not synchronised", "timedatectl set-ntp true")
    else:
        yield _ok("its clock is right")


def _nginx(state: HostState, app: Application, _: HostFacts) -> Iterator[Row]:
    if not app.has_site or state.fact("nginx_active") != "active":
        return
    named = state.site.partition("\n")[0].rpartition(" ")[2]
    if state.site and named != state.live_site_hash:
        remedy = "As root: nginx -t && systemctl reload nginx; the error log of Nginx names the cause"
        yield _warning("Nginx does not run the installed site", remedy)
    if state.site and named == state.live_site_hash and not state.fact("closed"):
        yield _ok("Nginx runs the installed site and reaches the flags")
    if state.fact("maintenance"):
        yield _warning(
            "the maintenance page is on",
            f"{PROGRAM} maintenance off --env {app.environment} when the maintenance is over",
        )


def _certificate(state: HostState, app: Application, facts: HostFacts) -> Iterator[Row]:
    if app.tls is None or not app.has_site:
        return
    found = facts.get("certificate")
    ends = untrusted.integer(found, maximum=untrusted.LATEST, default=None)
    if ends is None:
        yield _warning(
            f"{app.tls.certificate} could not be read: {found}", "As root: openssl x509 -in that file -noout -text"
        )
        return
    days = (ends - state.now) // 86_400
    if days < 0:
        yield _warning(f"the certificate expired {-days} days ago", "Renew it and reload Nginx")
    elif days < CERTIFICATE_DAYS:
        yield _warning(f"the certificate expires in {days} days", "Renew it and reload Nginx")
    # Source: openssl-x509(1), -checkhost: `Hostname NAME does NOT match certificate`.
    lacking = [domain for domain in app.domains if f"Hostname {domain} does NOT match" in facts.get("certificate_name")]
    if lacking:
        yield _warning(f"the certificate is not for {', '.join(lacking)}", "Install one for all domains of the site")
    elif days >= CERTIFICATE_DAYS:
        yield _ok(f"the certificate is for {', '.join(app.domains)} and expires in {days} days")
    yield from _served(app, app.tls, facts)


#: Of openssl-verify(1): an issuer is missing here and on clients; a certificate has expired.
_MISSING, _EXPIRED = {"20", "21"}, "10"


def _served(app: Application, tls: Tls, facts: HostFacts) -> Iterator[Row]:
    """Diagnose the certificates that Nginx sends. An authority of one's own is not in the host's store."""
    count, _, code = facts.get("served").partition(" ")
    sent = untrusted.integer(count, default=0)
    if not sent:
        return
    load = f"{site_helper(app.name)} certificate" if tls.chain else "systemctl reload nginx"
    if facts.get("served_print") != facts.get("certificate_print") != "":
        yield _warning(f"Nginx serves another certificate than {tls.certificate}", f"As root: {load}")
    elif code == _EXPIRED:
        yield _warning("a certificate that Nginx serves has expired", "Renew it and reload Nginx")
    elif code in _MISSING and sent == 1:
        remedy = f"Set SSL_CHAIN_PATH to a file with them, and run {PROGRAM} setup"
        yield _warning("Nginx sends no intermediate certificates: clients without them refuse the site", remedy)
    elif code == "0":
        yield _ok(f"Nginx sends the complete chain: {sent} certificate{'s' if sent > 1 else ''}")


def _accessories(state: HostState, app: Application, _: HostFacts) -> Iterator[Row]:
    declared = [accessory.name for accessory in app.accessories]
    for name in accessory.expected(app, state):
        if name not in declared:
            remedy = f"{PROGRAM} accessory.down --env {app.environment} --name {name} removes it"
            yield _warning(f"the accessory {name} runs here, but is not declared for this host", remedy)
        elif problem := accessory.problem(name, state):
            remedy = f"{PROGRAM} accessory.up --env {app.environment} --name {name}; accessory.logs shows its log"
            yield _warning(f"the accessory {name} is declared, but {problem}", remedy)
    for service, key, name in accessory.unreachable_urls(app):
        remedy = "Run the accessory on this host too (`roles`), or name a host that the container reaches"
        yield _warning(f"{service}: the host in {key} is the accessory {name}, which is not on this host", remedy)
    if declared and all(not accessory.problem(name, state) for name in declared):
        yield _ok(f"the accessories are healthy: {', '.join(declared)}")


def _jobs(state: HostState, app: Application, _: HostFacts) -> Iterator[Row]:
    for job in jobs.states(state, app):
        if job.failed:
            command = (
                f"{PROGRAM} logs --job {job.name} shows its output, {PROGRAM} job.run --name {job.name} repeats it"
            )
            yield _warning(f"the last run of the job {job.name} failed: {job.outcome}", command)
    if jobs.differ(state, app) and state.last_good is not None:
        yield _warning("its jobs are not those of services.yaml, or a timer does not run", f"{PROGRAM} deploy")
    elif app.jobs:
        yield _ok(f"the timers of its jobs run: {', '.join(job.name for job in app.jobs)}")


def _upkeep(state: HostState, _: Application, facts: HostFacts) -> Iterator[Row]:
    if facts.get("reboot") == "yes":
        yield _warning("it needs a reboot", "Reboot it when convenient: the boot unit starts the active colors")
    if facts.get("auth_info") == "no":
        problem = "sshd does not expose the key of a login: the history cannot name it"
        yield _warning(problem, f"{_SETUP}: it sets ExposeAuthInfo")
    if (lock := state.held_lock) is not None:
        problem = f"{lock.owner} holds the lock: {lock.reason}"
        yield Level.REFUSED, problem, f"Wait for its end; until then a deploy exits with 4 ({PROGRAM} lock.status)"
