"""The site's certificate on a host: checked, made here, or fetched by certbot. Items only; it runs nothing.

Source: RFC 8555, HTTP-01: the authority asks http://DOMAIN/.well-known/acme-challenge/ on port 80, which the site
passes on to the port on which certbot answers.
"""

from __future__ import annotations

from fabfile.commands.item import Item, file
from fabfile.commands.nginx import ACME_PORT, site_file, site_helper
from fabfile.commands.shell import Script, quote, script, words
from fabfile.commands.system import install, possible
from fabfile.model import Application, Certificate, Preparation, Tls

_DAYS = 825
_RENEW_SECONDS = 30 * 86400


def before_site(app: Application, rules: Preparation) -> tuple[Item, ...]:
    """What must hold before Nginx can take the site: a certificate with its key; the first of `acme` is made here."""
    if app.tls is None:
        return ()
    if rules.certificate is Certificate.FILES:
        return _checks(app, app.tls)
    lasting = _RENEW_SECONDS if rules.certificate is Certificate.SELF_SIGNED else 0
    test = f"{_there(app.tls)} && {_fits(app.tls)} && {_lasts(app.tls, lasting)} && {_is_of(app, app.tls)}"
    title = f"a self-signed certificate for {app.domain} ({app.tls.certificate})"
    if rules.certificate is Certificate.ACME:
        title += ", until certbot has one"
    return (Item("certificate", title, test, script(_make(app, app.tls))),)


def _checks(app: Application, tls: Tls) -> tuple[Item, ...]:
    """One for each thing that may be wrong with files that a person put there; all but the first take openssl."""
    there = _there(tls)
    silent = f"! {{ {there}; }} || ! command -v openssl"
    where = " and ".join(filter(None, (tls.certificate, tls.key, tls.chain)))
    rows = (
        ("certificate", f"the certificate and its key ({where})", there, "put both files there"),
        (
            "certificate key",
            f"the key of the certificate ({where})",
            f"{silent} || {_fits(tls)}",
            "put a matching pair there",
        ),
        (
            "certificate time",
            f"a certificate in its time ({tls.certificate})",
            f"{silent} || {_lasts(tls, 0)}",
            "renew it",
        ),
        (
            "certificate name",
            f"a certificate for {app.domain} ({tls.certificate})",
            f"{silent} || {_is_of(app, tls)}",
            "put one there whose names hold DOMAIN_NAME",
        ),
    )
    remedy = ", or set setup.certificate in hosts.yaml to self-signed or acme"
    return tuple(Item(id, title, test, None, text + remedy) for id, title, test, text in rows)


def _there(tls: Tls) -> str:
    return " && ".join(f"test -s {quote(path)}" for path in (tls.certificate, tls.key, tls.chain) if path)


def _fits(tls: Tls) -> str:
    """Source: openssl-x509(1), openssl-pkey(1): both print the public key."""
    public = f"$(openssl x509 -noout -pubkey -in {quote(tls.certificate)})"
    return f'test "{public}" = "$(openssl pkey -pubout -in {quote(tls.key)} -passin pass:)"'


def _lasts(tls: Tls, seconds: int) -> str:
    return f"openssl x509 -noout -checkend {seconds} -in {quote(tls.certificate)}"


def _is_of(app: Application, tls: Tls) -> str:
    """Source: openssl-x509(1): -checkhost prints its verdict and exits with 0 whatever it is."""
    return f"openssl x509 -noout -checkhost {quote(app.domain)} -in {quote(tls.certificate)} | grep -q 'does match'"


def _make(app: Application, tls: Tls) -> str:
    names = quote(f"subjectAltName=DNS:{app.domain}")
    ask = words("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    chain = f"cp {quote(tls.certificate)} {quote(tls.chain)}" if tls.chain else ":"
    return f"""\
mkdir -p {quote(tls.certificate.rpartition("/")[0])} {quote(tls.key.rpartition("/")[0])}
umask 077
{ask} -days {_DAYS} -subj {quote("/CN=" + app.domain[:64])} -addext {names} \\
  -keyout {quote(tls.key + ".new")} -out {quote(tls.certificate + ".new")} 2>/dev/null
chmod 644 {quote(tls.certificate + ".new")}
sync {quote(tls.key + ".new")} {quote(tls.certificate + ".new")}
mv -f {quote(tls.key + ".new")} {quote(tls.key)}
mv -f {quote(tls.certificate + ".new")} {quote(tls.certificate)}
{chain}
if systemctl is-active --quiet nginx && nginx -t 2>/dev/null; then systemctl reload nginx; fi"""


def after_site(app: Application, rules: Preparation) -> tuple[Item, ...]:
    """A certificate of an authority, and its renewal by certbot's own timer, where the setting says so."""
    if app.tls is None or rules.certificate is not Certificate.ACME:
        return ()
    hook = f"{site_helper(app.name).rpartition('/')[0]}/certificate"
    live = f"/etc/letsencrypt/live/{app.name}"
    tools = Item(
        "certbot",
        "packages: certbot",
        "command -v certbot",
        script(install(("certbot",))),
        "install certbot",
        possible=possible("certbot"),
    )
    # A site of before goes on without one until a deploy has let the authority's question through.
    closed = f"! grep -q '/.well-known/acme-challenge/' {quote(site_file(app.name))}"
    same = f"cmp -s {quote(live + '/fullchain.pem')} {quote(app.tls.certificate)}"
    renewal = f"grep -qsF {quote(hook)} {quote(f'/etc/letsencrypt/renewal/{app.name}.conf')}"
    test = f"{closed} || {{ {same} && {_fits(app.tls)} && {_is_of(app, app.tls)} && {renewal}; }}"
    title = f"a certificate for {app.domain} by certbot, renewed by its timer"
    program = file(
        "certificate hook", f"what puts a renewed certificate in place ({hook})", hook, _hook(app, app.tls), "755"
    )
    return (tools, program, Item("acme certificate", title, test, _fetch(app, rules, hook)))


def _fetch(app: Application, rules: Preparation, hook: str) -> Script:
    """Source: certbot(1): --deploy-hook runs on renewals as well, and is kept in the renewal's settings."""
    options = ["certonly", "--non-interactive", "--agree-tos", "--standalone", "--keep-until-expiring"]
    options += ["--http-01-address", "127.0.0.1", "--http-01-port", str(ACME_PORT), "--cert-name", app.name]
    options += ["--domain", app.domain, "--email", rules.acme_email, "--deploy-hook", hook]
    options += ["--server", rules.acme_server] if rules.acme_server else []
    lineage = f"RENEWED_LINEAGE={quote('/etc/letsencrypt/live/' + app.name)}"
    return script(f"{words('certbot', *options)} </dev/null\n{lineage} {quote(hook)}")


def _hook(app: Application, tls: Tls) -> str:
    chain = f"put chain.pem {quote(tls.chain)} 644" if tls.chain else ":"
    return f"""\
#!/bin/sh
# Puts the certificate that certbot renewed where the site of {app.name} reads it. Made by inv setup.
set -eu
umask 077
put() {{
  mkdir -p "$(dirname "$2")"
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
