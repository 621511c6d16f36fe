"""The HTTP requests that check the application: they ask what a visitor asks.

Frameworks refuse a request whose Host is not the site's (Django's ALLOWED_HOSTS, Rails' config.hosts), and redirect one
that did not arrive over https. So every check sends the Host and the X-Forwarded-Proto of a visitor, also to loopback
ports. Its User-Agent separates it from visitors, in the request metrics as in the application's own log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Application, Probe, Service
from rolling_upgrade.engine.shell import quote, shell_join
from rolling_upgrade.engine.site.text import PROBE_AGENT

#: The header in which Nginx names the upstream that answered, on service ports only.
SERVED_BY = "x-served-by"
#: The deadline of a request through the public site.
VISITOR_SECONDS = 5
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: The bytes of a failed answer that are read, and the characters of its body that are shown.
_READ_BYTES, _SHOWN_CHARACTERS = 8192, 400


@dataclass(frozen=True)
class Request:
    """One GET request of a check.

    Attributes:
        url: where curl sends it.
        headers: the headers of a visitor, which curl would not send by itself.
        own: the headers that the service's configuration adds. They may be secret, so no argument contains them.
        resolve: sends a request for the public name to this host, in the form of curl's option.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    own: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    resolve: str = ""

    @property
    def sent(self) -> str:
        """The headers for people, without those of the configuration."""
        return ", ".join(f"{name}: {value}" for name, value in self.headers)

    @property
    def shown(self) -> str:
        """The request for people."""
        return f"GET {self.url}{f' with {self.sent}' if self.sent else ''}"


def to_service(app: Application, service: Service, port: int, path: str = "") -> Request:
    """The request of a visitor to a service, sent to one of its loopback ports; by default to its health path."""
    gate = service.gate
    headers = (("Host", _host(app, service)), ("X-Forwarded-Proto", gate.scheme or _scheme(app)))
    return Request(f"http://127.0.0.1:{port}{path or gate.path}", headers, gate.headers)


def of_chain(app: Application, chain: Probe) -> Request:
    """The request of a visitor that needs all services."""
    service = app.service(chain.service)
    return to_service(app, service, service.service_port, chain.path)


def to_site(app: Application, path: str = "/") -> Request:
    """The request of a visitor to the public site, sent to this host."""
    port = _public_port(app)
    return Request(f"{_scheme(app)}://{app.domain}:{port}{path}", resolve=f"{app.domain}:{port}:127.0.0.1")


def from_outside(app: Application, service: Service | None) -> tuple[tuple[str, str], ...]:
    """All headers of a request to the public site, for a program that reaches it by the address of a host.

    `service` answers the path of the request.
    """
    visitor = (("Host", _authority(app, app.domain)), ("X-Forwarded-Proto", _scheme(app)), ("User-Agent", PROBE_AGENT))
    return (*visitor, *(service.gate.headers if service else ()))


def _host(app: Application, service: Service) -> str:
    """Return the Host. A scheme other than the site's is that of a proxy before it, on the scheme's default port."""
    if service.gate.host:
        return service.gate.host
    domain = app.domain_of(service)
    return _authority(app, domain) if service.gate.scheme in {"", _scheme(app)} else domain


def _authority(app: Application, domain: str) -> str:
    """Return the domain, with the port if it is not the default of the scheme, as browsers do."""
    port = _public_port(app)
    return domain if port == _DEFAULT_PORTS[_scheme(app)] else f"{domain}:{port}"


def _scheme(app: Application) -> str:
    return "https" if app.tls else "http"


def _public_port(app: Application) -> int:
    return app.https_port if app.tls else app.http_port


def status(request: Request, seconds: float, form: str) -> str:
    """A command that sends the request and prints the answer in curl's format `form`, without its body."""
    return _curl(request, seconds, "-o", "/dev/null", "-w", form)


def _curl(request: Request, seconds: float, *words: str) -> str:
    headers = [word for name, value in request.headers for word in ("-H", f"{name}: {value}")]
    if request.resolve:
        headers += ["-k", "--resolve", request.resolve]
    options = ["-s", "--max-time", f"{seconds:g}", "-A", PROBE_AGENT, *headers, *words]
    if not request.own:
        return shell_join("curl", *options, request.url)
    # printf is built in: the process list never shows its arguments.
    lines = shell_join("printf", r"%s\n", *(f"{name}: {value}" for name, value in request.own))
    return f"{lines} | {shell_join('curl', *options, '-H', '@-', request.url)}"


def configuration(request: Request, seconds: float, form: str) -> str:
    """A command that prints the request of `status` as configuration for `parallel`."""
    rows = [("url", request.url), ("output", "/dev/null"), ("write-out", form), ("max-time", f"{seconds:g}")]
    rows += [("user-agent", PROBE_AGENT)]
    rows += [("header", f"{name}: {value}") for name, value in (*request.headers, *request.own)]
    if request.resolve:
        rows += [("resolve", request.resolve)]
    escaped = [(name, value.replace("\\", "\\\\").replace('"', '\\"')) for name, value in rows]
    lines = [f'{name} = "{value}"' for name, value in escaped]
    return shell_join("printf", r"%s\n", *lines, *(["insecure"] if request.resolve else []))


def parallel(configurations: Iterable[str]) -> str:
    """A command that sends requests at the same time with one curl; `configurations` are commands that print them.

    Source: curl(1): with --parallel each transfer has its own --max-time and its own --write-out line; -s alone does not
    silence the progress meter; `next` begins another request.
    """
    printed = "\necho next\n".join(configurations)
    return f"{{\n{printed}\n}} | curl -s --no-progress-meter --parallel --parallel-immediate -K -"


def over_socket(request: Request) -> tuple[tuple[str, int], bytes]:
    """The address and the bytes of the same request to a service, for a program that starts no curl."""
    address, _, path = request.url.removeprefix("http://").partition("/")
    host, _, port = address.partition(":")
    headers = (*request.headers, *request.own, ("User-Agent", PROBE_AGENT), ("Connection", "close"))
    lines = (f"GET /{path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", "")
    return (host, int(port)), "\r\n".join(lines).encode()


#: The format of an answer for `read_answer`: status, upstream, and where it redirects or why there is none.
ANSWER = f"%{{http_code}} %header{{{SERVED_BY}}}|%header{{location}}%{{errormsg}}"

#: Define `read_answer TEXT` for a text of the format ANSWER. It sets `code`, `served`, and for people `answer`, such as
#: `HTTP 301`, and `reason`, such as `, a redirect to https://shop.example/`. The query of a redirect may contain a secret.
READ_ANSWER = """\
read_answer() {
  served=${1%%|*} reason=''
  case "$1" in *'|'*) reason=${1#*|} ;; esac
  code=${served%% *}
  served=${served#"$code"}
  served=${served# }
  case "$code" in
    3??) answer="HTTP $code" reason=", a redirect${reason:+ to $(printf %.200s "${reason%%[?#]*}")}" ;;
    ''|000) code=000 answer="no answer" reason="${reason:+ ($(printf %.200s "$reason"))}" ;;
    *) answer="HTTP $code" reason='' ;;
  esac
}"""


def described(code: str, served: str, location: str) -> str:
    """Describe an answer for people; `served` and `location` are the values of its headers, which are untrusted."""
    answer = "no answer" if code == "000" else f"HTTP {untrusted.line(code, 10)}"
    if served:
        answer += f" from {served}"
    if code.startswith("3"):
        target = untrusted.line(re.split("[?#]", location)[0], 200)
        answer += f", a redirect to {target}" if target else ", a redirect"
    return answer


#: Print the status of an answer with headers, and the start of its body on one line. A secret must not be cut, because
#: only whole ones are masked: the last word of a long body is left out.
_SHOW_BODY = rf"""
NR == 1 {{ code = $2; next }}
body {{ text = text " " $0; next }}
/^\r?$/ {{ body = 1 }}
END {{
  gsub(/[[:space:][:cntrl:]]+/, " ", text)
  sub(/^ /, "", text)
  if (length(text) > {_SHOWN_CHARACTERS}) {{
    text = substr(text, 1, {_SHOWN_CHARACTERS})
    sub(/[^ "<>,{{}}]*$/, "...", text)
  }}
  if (code) print "HTTP " code ", body: " (text == "" ? "empty" : text)
  else print "no answer"
}}""".strip()


def print_answer(request: Request, seconds: float) -> str:
    """Commands that send a failed request again, and print it with the status and the start of the body of its answer."""
    send = _curl(request, seconds, "-i")
    return f"""\
printf '%s\\n' {quote(f"asked again: {request.shown}")}
{send} | head -c {_READ_BYTES} | awk {quote(_SHOW_BODY)} || :"""
