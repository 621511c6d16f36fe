"""The site's certificate on a host: provided by the operator, self-signed, or obtained by certbot.

Source: RFC 8555, HTTP-01: the certificate authority requests http://DOMAIN/.well-known/acme-challenge/ on port 80; the
site proxies it to certbot's port.
"""

from __future__ import annotations

from rolling_upgrade import rendering
from rolling_upgrade.engine.model import Application, Certificate, Preparation, Tls
from rolling_upgrade.engine.nginx import program_directory, site_helper
from rolling_upgrade.engine.paths import rooted, rooted_or_exit
from rolling_upgrade.engine.resource import Resource, file, has_content, has_mode, is_absent
from rolling_upgrade.engine.shell import Script, quote, script, shell_join, write_file
from rolling_upgrade.engine.site.schema import joined_certificate
from rolling_upgrade.engine.site.text import ACME_PORT
from rolling_upgrade.features.setup.system import install_packages, is_installable

_DAYS = 825
_RENEW_SECONDS = 30 * 86400


def before_site(app: Application, preparation: Preparation) -> tuple[Resource, ...]:
    """Return the certificate and key that Nginx needs to load the site; for `acme` a self-signed pair comes first."""
    if app.tls is None:
        return ()
    directories = _root_owned_directories(app.tls)
    if preparation.certificate is Certificate.FILES:
        return (*directories, *_checks(app, app.tls), *_chain(app, app.tls))
    seconds = _RENEW_SECONDS if preparation.certificate is Certificate.SELF_SIGNED else 0
    test = f"{_files_exist(app.tls)} && {_key_matches(app.tls)} && {_is_valid_for(app.tls, seconds)} && {_names_domains(app, app.tls)}"
    title = f"a self-signed certificate for {_listed(app)} ({app.tls.certificate})"
    if preparation.certificate is Certificate.ACME:
        title += ", until certbot obtains one"
    pair = Resource("certificate", title, test, script(_make_self_signed(app, app.tls)))
    return (*directories, pair, *_chain(app, app.tls))


def _paths(tls: Tls) -> tuple[str, ...]:
    return tuple(path for path in (tls.certificate, tls.key, tls.chain) if path)


def _root_owned_directories(tls: Tls) -> tuple[Resource, ...]:
    """Require root-owned directories, so that no link redirects root, which writes these files, or Nginx."""
    keys = ("SSL_CERT_PATH", "SSL_KEY_PATH", "SSL_CHAIN_PATH")
    rows = [(key, path) for key, path in zip(keys, (tls.certificate, tls.key, tls.chain), strict=True) if path]
    return tuple(
        Resource(
            f"place of {key}",
            f"{key} in directories that only root can write ({path})",
            rooted(path),
            None,
            f"another user could place a link there, so root touches nothing. namei -l {path} shows the owner of each "
            f"directory. Move the file, for example below /etc/ssl, and change {key}; or make the directory root's "
            "alone (chown root:, chmod go-w)",
        )
        for key, path in rows
    )


def _checks(app: Application, tls: Tls) -> tuple[Resource, ...]:
    """Check the files of the operator, one resource for each possible fault; all but the first need openssl."""
    skip = f"! {{ {_files_exist(tls)}; }} || ! command -v openssl"
    exists = f"! {rooted(*_paths(tls))} || {{ {_files_exist(tls)}; }}"
    tests = (_key_matches(tls), _is_valid_for(tls, 0), _names_domains(app, tls))
    matching, valid, named = (f"{skip} || {test}" for test in tests)
    both, path, install = (
        " and ".join(_paths(tls)),
        tls.certificate,
        "install one that is valid for every domain of the site",
    )
    rows: tuple[tuple[str, str, str, str], ...] = (
        ("certificate", f"the certificate and its key ({both})", exists, "put both files there"),
        ("certificate key", f"the key of the certificate ({both})", matching, "put a matching pair there"),
        ("certificate time", f"a certificate that has not expired ({path})", valid, "renew it"),
        ("certificate name", f"a certificate for {_listed(app)} ({path})", named, install),
    )
    if tls.chain:
        issuer, listed = f"openssl x509 -noout -issuer -in {path}", f"openssl storeutl -noout -text -certs {tls.chain}"
        signed = f"an intermediate certificate that signed the certificate ({tls.chain})"
        current = f"intermediate certificates that have not expired ({tls.chain})"
        rows += (
            ("chain", signed, f"{skip} || {_is_signed(tls)}", f"put the issuer there that `{issuer}` names"),
            (
                "chain time",
                current,
                f"{skip} || {_chain_is_valid(tls)}",
                f"get the current ones: `{listed}` shows theirs",
            ),
        )
    remedy = ", or set setup.certificate in hosts.yaml to self-signed or acme"
    return tuple(Resource(id, title, test, None, text + remedy) for id, title, test, text in rows)


def _listed(app: Application) -> str:
    return ", ".join(app.domains)


def _files_exist(tls: Tls) -> str:
    """A shell condition: the files exist, are regular and not empty, in directories that only root can write."""
    files = (f"test -f {quote(path)} && test -s {quote(path)}" for path in _paths(tls))
    return " && ".join((rooted(*_paths(tls)), *files))


def _key_matches(tls: Tls) -> str:
    """A shell condition: certificate and key match. Source: openssl-x509(1), openssl-pkey(1): both print the public key."""
    public = f"$(openssl x509 -noout -pubkey -in {quote(tls.certificate)})"
    return f'test "{public}" = "$(openssl pkey -pubout -in {quote(tls.key)} -passin pass:)"'


def _is_valid_for(tls: Tls, seconds: int) -> str:
    return f"openssl x509 -noout -checkend {seconds} -in {quote(tls.certificate)}"


def _names_domains(app: Application, tls: Tls) -> str:
    """A shell condition: the certificate names all domains. Source: openssl-x509(1): -checkhost always exits with 0."""
    check = "openssl x509 -noout -checkhost {} -in {} | grep -q 'does match'"
    return " && ".join(check.format(quote(domain), quote(tls.certificate)) for domain in app.domains)


def _is_signed(tls: Tls) -> str:
    """A shell condition: a certificate of the chain signed the certificate. Source: openssl-verification-options(1)."""
    verify = shell_join("openssl", "verify", "-no_check_time", "-partial_chain", "-trusted")
    return f"{verify} {quote(tls.chain)} {quote(tls.certificate)}"


def _chain_is_valid(tls: Tls) -> str:
    """A shell condition: no certificate of the chain has expired, and there is one. Source: openssl-storeutl(1)."""
    return f"""\
ends=$(openssl storeutl -noout -text -certs {quote(tls.chain)} | sed -n 's/^ *Not After : //p') && test -n "$ends" &&
printf '%s\\n' "$ends" | {{
  while read -r end; do test "$(date -d "$end" +%s)" -gt "$(date +%s)" || exit 1; done
}}"""


def _chain(app: Application, tls: Tls) -> tuple[Resource, ...]:
    """Join the certificate and its intermediates for Nginx, now and whenever one of the files changes."""
    if not tls.chain:
        return ()
    helper, path = site_helper(app.name), joined_certificate(app.name)
    joined = Resource(
        "joined certificate",
        f"the certificate with its intermediates, for clients ({path})",
        f"{quote(helper)} check-certificate && {has_mode(path, 'root 644')}",
        script(f"chmod -f 644 {quote(path)} || :", f"{quote(helper)} certificate"),
    )
    files = {unit: rendering.systemd_unit(unit.rpartition("-")[2], app) for unit in unit_paths(app)}
    units = [unit.rpartition("/")[2] for unit in files]
    tests = [f"{has_content(name, text)} && {has_mode(name, 'root 644')}" for name, text in files.items()]
    tests += [shell_join("systemctl", "is-enabled", "--quiet", *units)]
    tests += [shell_join("systemctl", "is-active", "--quiet", units[-1])]
    install = script(
        *(write_file(name, text, mode="0644") for name, text in files.items()),
        "systemctl daemon-reload",
        shell_join("systemctl", "enable", "--quiet", *units),
        shell_join("systemctl", "restart", units[-1]),
    )
    title = f"{units[-1]}, which joins them again after a renewal"
    return joined, Resource("certificate units", title, " && ".join(tests), install)


def unit_paths(app: Application) -> tuple[str, str]:
    """Return the units of root that keep the joined certificate current."""
    return tuple(f"/etc/systemd/system/{app.name}-certificate.{kind}" for kind in ("service", "path"))  # type: ignore[return-value]


def remove_units(app: Application) -> Script:
    """Stop and delete these units. The joined file stays until the site no longer names it."""
    service, path = (unit.rpartition("/")[2] for unit in unit_paths(app))
    return script(
        f"{shell_join('systemctl', 'disable', '--quiet', '--now', path)} 2>/dev/null || :",
        f"{shell_join('systemctl', 'disable', '--quiet', service)} 2>/dev/null || :",
        shell_join("rm", "-f", *unit_paths(app)),
        "systemctl daemon-reload",
    )


def _make_self_signed(app: Application, tls: Tls) -> str:
    names = quote("subjectAltName=" + ",".join(f"DNS:{domain}" for domain in app.domains))
    ask = shell_join("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    chain = f"cp {quote(tls.certificate)} {quote(tls.chain)}" if tls.chain else ":"
    directories = dict.fromkeys(path.rpartition("/")[0] or "/" for path in _paths(tls))
    return f"""\
{rooted_or_exit(*_paths(tls))}
{shell_join("mkdir", "-p", *directories)}
umask 077
{shell_join("rm", "-f", tls.key + ".new", tls.certificate + ".new")}
{ask} -days {_DAYS} -subj {quote("/CN=" + app.domain[:64])} -addext {names} \\
  -keyout {quote(tls.key + ".new")} -out {quote(tls.certificate + ".new")} 2>/dev/null
chmod 644 {quote(tls.certificate + ".new")}
sync {quote(tls.key + ".new")} {quote(tls.certificate + ".new")}
mv -f {quote(tls.key + ".new")} {quote(tls.key)}
mv -f {quote(tls.certificate + ".new")} {quote(tls.certificate)}
{chain}
if systemctl is-active --quiet nginx && nginx -t 2>/dev/null; then systemctl reload nginx; fi"""


def after_site(app: Application, preparation: Preparation) -> tuple[Resource, ...]:
    """Return the certificate of the authority for `acme`, which certbot's own timer renews; and no unused units."""
    unwatched = Resource(
        "certificate units", f"no {app.name}-certificate.path", is_absent(*unit_paths(app)), remove_units(app)
    )
    rest = () if app.tls and app.tls.chain else (unwatched,)
    if app.tls is None or preparation.certificate is not Certificate.ACME:
        return rest
    hook = f"{program_directory(app.name)}/certificate"
    live = f"/etc/letsencrypt/live/{app.name}"
    tools = Resource(
        "certbot",
        "packages: certbot",
        "command -v certbot",
        script(install_packages(("certbot",))),
        "install certbot",
        possible=is_installable("certbot"),
    )
    # A process that takes this port answers the challenge, and so obtains a certificate for the domain.
    lowest = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
    alone = Resource(
        "acme port",
        f"port {ACME_PORT}, on which certbot answers the challenge, is reserved for root",
        f'test "$(cat {lowest})" -gt {ACME_PORT}',
        None,
        f"users may open ports from net.ipv4.ip_unprivileged_port_start up: set it above {ACME_PORT} (sysctl)",
    )
    same = f"{_files_exist(app.tls)} && cmp -s {quote(live + '/fullchain.pem')} {quote(app.tls.certificate)}"
    renewal = f"grep -qsF {quote(hook)} {quote(f'/etc/letsencrypt/renewal/{app.name}.conf')}"
    test = f"{same} && {_key_matches(app.tls)} && {_names_domains(app, app.tls)} && {renewal}"
    title = f"a certificate for {_listed(app)} by certbot, renewed by its timer"
    program = file(
        "certificate hook", f"the hook that installs a renewed certificate ({hook})", hook, _hook(app, app.tls), "755"
    )
    return (*rest, alone, tools, program, Resource("acme certificate", title, test, _fetch(app, preparation, hook)))


def _fetch(app: Application, preparation: Preparation, hook: str) -> Script:
    """Run certbot, then its hook. Source: certbot(1): --deploy-hook is stored and also runs after renewals."""
    options = ["certonly", "--non-interactive", "--agree-tos", "--standalone", "--keep-until-expiring"]
    options += ["--http-01-address", "127.0.0.1", "--http-01-port", str(ACME_PORT), "--cert-name", app.name]
    # Source: certbot(1): --expand replaces the certificate of the same name when further domains are given.
    options += [word for domain in app.domains for word in ("--domain", domain)] + ["--expand"]
    options += ["--email", preparation.acme_email, "--deploy-hook", hook]
    options += ["--server", preparation.acme_server] if preparation.acme_server else []
    lineage = f"RENEWED_LINEAGE={quote('/etc/letsencrypt/live/' + app.name)}"
    return script(f"{shell_join('certbot', *options)} </dev/null\n{lineage} {quote(hook)}")


def _hook(app: Application, tls: Tls) -> str:
    chain = f"put chain.pem {quote(tls.chain)} 644\n{quote(site_helper(app.name))} certificate" if tls.chain else ":"
    return f"""\
#!/bin/sh
# Installs the certificate that certbot renewed where the site of {app.name} reads it. Made by inv setup.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL
umask 077
{rooted_or_exit(*_paths(tls))}
put() {{
  mkdir -p "$(dirname "$2")"
  rm -f "$2.new"
  cp "$RENEWED_LINEAGE/$1" "$2.new"
  chmod "$3" "$2.new"
  sync "$2.new"
  mv -f "$2.new" "$2"
}}
put privkey.pem {quote(tls.key)} 600
put fullchain.pem {quote(tls.certificate)} 644
{chain}
nginx -t 2>/dev/null
systemctl reload nginx
"""
