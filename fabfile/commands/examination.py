"""What a doctor asks of a host beyond an observation: versions, rights, clock, storage, certificate. Pure text."""

from __future__ import annotations

from fabfile.commands import journal, state
from fabfile.commands.nginx import site_helper
from fabfile.commands.shell import Script, quote, words
from fabfile.model import Application

_MARK = "@@doctor"


def examine(app: Application) -> Script:
    """Observe, and print what else there is to know, in one round trip; changes nothing."""
    return journal.direct(state.observation(app), _questions(app))


def _questions(app: Application) -> str:
    helper = site_helper(app.name)
    boot = helper.rpartition("/")[0] + "/boot"
    info = "{{.Store.GraphDriverName}} {{.Host.CgroupsVersion}} {{range .Host.CgroupControllers}}{{.}},{{end}}"
    return f"""\
echo {_MARK}
fact clock "$(date +%s.%N)"
fact nginx_version "$(nginx -v 2>&1 | sed 's/.*nginx.//')"
fact curl_version "$(curl --version 2>/dev/null | awk '{{ print $2; exit }}')"
fact podman_info "$({words("podman", "info", "--format", info)} 2>/dev/null)"
fact subuid "$(awk -F : -v user="$(id -un)" '$1 == user {{ sum += $3 }} END {{ print sum + 0 }}' /etc/subuid 2>/dev/null)"
fact subgid "$(awk -F : -v user="$(id -un)" '$1 == user {{ sum += $3 }} END {{ print sum + 0 }}' /etc/subgid 2>/dev/null)"
fact manager "$(systemctl --user is-system-running 2>/dev/null || :)"
fact boot_unit "$(systemctl --user is-enabled {quote(app.name + "-boot.service")} 2>/dev/null || :)"
fact sudo "$(sudo -n -l 2>/dev/null | sed -n 's/^ *(\\([^)]*\\)) *\\(.*\\)/\\2/p' | tr '\\n' ',')"
fact helper_sum "$(sha256sum < {quote(helper)} 2>/dev/null | cut -d ' ' -f 1)"
fact boot_sum "$(sha256sum < {quote(boot)} 2>/dev/null | cut -d ' ' -f 1)"
fact synchronised "$(timedatectl show --property=NTPSynchronized --value 2>/dev/null || :)"
fact reboot "$(if [ -e /run/reboot-required ]; then echo yes; else echo no; fi)"
fact auth_info "$(if [ -n "${{SSH_USER_AUTH:-}}" ]; then echo yes; else echo no; fi)"
{_certificate(app)}"""


def _certificate(app: Application) -> str:
    if app.tls is None:
        return ""
    path = quote(app.tls.certificate)
    return f"""\
if ! command -v openssl >/dev/null 2>&1; then fact certificate "no openssl"
elif [ ! -r {path} ]; then fact certificate unreadable
else
  fact certificate "$(date -d "$(openssl x509 -in {path} -noout -enddate 2>/dev/null | cut -d = -f 2)" +%s 2>/dev/null || echo damaged)"
  fact certificate_name "$(openssl x509 -in {path} -noout -checkhost {quote(app.domain)} 2>/dev/null || :)"
fi"""


def parse(output: str) -> dict[str, str]:
    """What `examine` printed beyond the observation."""
    _, _, text = output.partition(f"{_MARK}\n")
    return {key: value.strip() for key, _, value in (row.partition("=") for row in text.splitlines())}
