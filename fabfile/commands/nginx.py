"""Nginx commands: the flag that chooses a color, and the site text with its proof of being live. It renders nothing.

Source: a flag flip reaches the next request within about 10 ms and never closes a connection; a reload closes idle
keep-alive connections, and `nginx -t`, `-s reload` and `systemctl reload` exit 0 while the old configuration stays.
"""

from __future__ import annotations

from fabfile.commands.shell import Script, quote, script, write_file
from fabfile.model import Application, Color

#: Path on each loopback port at which Nginx answers the hash of the site text that it runs.
SITE_HASH_PATH = "/_rolling/site"
#: Path on the first loopback port at which Nginx answers its own figures (stub_status).
NGINX_STATUS_PATH = "/_rolling/nginx"
#: Loopback port on which certbot answers the certificate authority; only root can take it.
ACME_PORT = 402


def flag(app: Application, service: str) -> str:
    """The file whose presence means green."""
    return f"{app.home}/live/{service}.green"


def flip(app: Application, service: str, color: Color) -> str:
    """Make the color the one that visitors reach, from the next request on."""
    path = quote(flag(app, service))
    return f": > {path}" if color is Color.GREEN else f"rm -f {path}"


def maintenance_page(app: Application) -> str:
    """The page that visitors get while it is there, with status 503; see commands/maintenance.py."""
    return f"{app.home}/live/maintenance.html"


def site_file(app: str) -> str:
    """Where the host's Nginx reads the application's site."""
    return f"/etc/nginx/conf.d/{app}.conf"


def request_log(app: str) -> str:
    """Where Nginx keeps a line for each request: root's, in a directory of root's; the deploy user may read it."""
    return f"/var/log/{app}-requests/requests.log"


def site_helper(app: str) -> str:
    """The root-owned program that alone may change the site file."""
    return f"/usr/local/lib/{app}/site"


def site_rules(app: Application) -> str:
    """What the site may listen on and be called, and its certificate: the lines that the helper takes, root's to say."""
    names = [f"server_name {app.domain}"]
    ports = [(app.http_port, "")] + ([(app.https_port, " ssl")] if app.tls else [])
    listens = [f"listen {place}{port}{kind}" for port, kind in ports for place in ("", "[::]:")]
    tls = []
    if app.tls:
        tls = [f"ssl_certificate {app.tls.certificate}", f"ssl_certificate_key {app.tls.key}"]
        tls += [f"ssl_trusted_certificate {app.tls.chain}"] if app.tls.chain else []
        tls += ["ssl_protocols TLSv1.2 TLSv1.3"]
    return "".join(f"{line}\n" for line in (*listens, *names, *tls))


def site_rules_file(app: str) -> str:
    """Where the helper reads them."""
    return f"{site_helper(app).rpartition('/')[0]}/rules"


def install_site(app: Application, text: str) -> Script:
    """Replace the site text through the root-owned helper, which proves it live or puts the old bytes back."""
    staged = f"{app.home}/journal/site.conf"
    return script(
        write_file(staged, text),
        f"sudo -n {quote(site_helper(app.name))} install < {quote(staged)}",
    )


def restore_site(app: Application, site_hash: str) -> str:
    """Take back the site text of that hash; nothing happens when another text is in place."""
    return f"printf %s {quote(site_hash)} | sudo -n {quote(site_helper(app.name))} restore"
