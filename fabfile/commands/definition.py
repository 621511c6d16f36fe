"""What a release was made of, kept on the host as `config/RELEASE.json`: its form, and the look at it. Runs nothing.

Secrets are not in it: the environment of each container stays in the host's own 0600 file, found by its spec. Together
they are all that is needed to run the release again, whatever the workstation's files say by then.
"""

from __future__ import annotations

import dataclasses
import json

from fabfile.commands.form import plain, typed
from fabfile.commands.podman import config_directory, env_fingerprints, spec_hash
from fabfile.commands.shell import Script, quote, words, write_file
from fabfile.model import Application, Image, Recorded


def file(home: str, release: str) -> str:
    """Where the host keeps the definition of a release."""
    return f"{home}/config/{release}.json"


def write(home: str, release: str, app: Application) -> Script:
    """Keep what the release is made of."""
    return write_file(file(home, release), dump(app))


def dump(app: Application) -> str:
    """The application as JSON, its secrets left out: a field that repr() does not show is not written."""
    services = tuple(
        dataclasses.replace(service, recorded=Recorded(spec_hash(app.name, service), env_fingerprints(service)))
        for service in app.services
    )
    return json.dumps(plain(dataclasses.replace(app, services=services)), indent=1) + "\n"


def parse(text: str, home: str) -> Application:
    """Read what `dump` wrote for this home; what is missing has its default. Raises ValueError for anything else."""
    try:
        found: Application = typed(Application, json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is no definition of a release ({error})") from error
    if not found.services or not all(service.recorded for service in found.services) or found.home != home:
        raise ValueError("this is no definition of a release")
    return found


def look(home: str, release: str) -> str:
    """Print the definition of a release; nothing when the host has none."""
    return f"cat {quote(file(home, release))} 2>/dev/null || :"


def available(app: Application) -> str:
    """Print `SERVICE image|env yes|registry|no` for all that the application's release needs to run again."""
    parts = []
    for service in app.services:
        env_file = quote(f"{config_directory(app, service)}/env")
        parts.append(
            f"if [ -f {env_file} ]; then echo {service.name} env yes; else echo {service.name} env no; fi\n"
            f"if {words('podman', 'image', 'exists', service.image.pinned)}; then echo {service.name} image yes\n"
            f"elif {_in_registry(service.image)}; then echo {service.name} image registry\n"
            f"else echo {service.name} image no; fi"
        )
    return "\n".join(parts)


def _in_registry(image: Image) -> str:
    command = words("timeout", 20, "skopeo", "inspect", "--raw", f"docker://{image.pinned}")
    return f"{command} >/dev/null 2>&1"
