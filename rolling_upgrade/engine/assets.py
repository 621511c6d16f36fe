"""The files of earlier releases that visitors may still ask for, such as scripts and styles with a hash in their names.

A deploy copies the assets out of the image before any cutover, one directory per image. Links to their files make one
directory for Nginx, which serves from there what the application answers with 404: so a page of the former release
finds its assets after the cutover, and a page of a host that is already upgraded finds them on one that is not.
"""

from __future__ import annotations

from collections.abc import Iterable

from rolling_upgrade.engine.model import Application, Image, Service
from rolling_upgrade.engine.prune_entry import Mode, size_of
from rolling_upgrade.engine.shell import Script, quote, script, shell_join

#: The time limit for copying the assets of all services.
COPY_SECONDS = 300


def directory(app: Application, service: Service) -> str:
    """The directory of a service's assets: `releases/DIGEST` for each image, and `files` for Nginx."""
    return f"{app.home}/assets/{service.name}"


def copy(app: Application, running: Iterable[tuple[Service, Image]]) -> Script:
    """Copy the assets of the services' images that are not on the host yet; `running` are the images that serve now.

    Their image need not have the directory: assets may be new in this release.
    """
    services = [service for service in app.services if service.assets]
    wanted = [(service, service.image) for service in services]
    calls = [
        shell_join(
            "copy_assets",
            f"{app.name}-{service.name}-assets",
            image.pinned,
            service.assets.path,
            f"{directory(app, service)}/releases/{image.digest.removeprefix('sha256:')}",
            need,
        )
        for pairs, need in ((running, "optional"), (wanted, "required"))
        for service, image in pairs
        if service.assets and image.digest
    ]
    links = [shell_join("link_assets", directory(app, service)) for service in services]
    return script(f"umask 022\nmkdir -p {quote(app.home + '/assets')}", _COPY, _LINK, *calls, *links)


#: Define `copy_assets CONTAINER IMAGE PATH TARGET required|optional`. Only files are kept: Nginx refuses links anyway.
#: The new release is younger than the running one, however fast both are copied.
#: Source: podman-cp(1): `/.` copies the content; a container need not have been started.
_COPY = """\
copy_assets() {
  if [ -d "$4" ]; then
    date_release "$4" "$5"
    return 0
  fi
  rm -rf "$4.new"
  mkdir -p "$4.new"
  podman rm --force "$1" >/dev/null 2>&1 || :
  if ! podman create --quiet --pull=never --network none --name "$1" "$2" true >/dev/null 2>&1; then
    if [ "$5" = optional ]; then rm -rf "$4.new"; return 0; fi
    echo "cannot create a container of $2 to copy its assets"
    exit 1
  fi
  copied=yes
  why=$(podman cp "$1:$3/." "$4.new" 2>&1) || copied=''
  podman rm --force "$1" >/dev/null
  if [ -z "$copied" ]; then
    rm -rf "$4.new"
    if [ "$5" = optional ]; then return 0; fi
    echo "cannot copy the assets at $3 out of the image $2: $why"
    exit 1
  fi
  find "$4.new" ! -type f ! -type d -delete
  chmod -R u=rwX,go=rX "$4.new"
  date_release "$4.new" "$5"
  mv -T "$4.new" "$4"
}
date_release() {
  case $2 in required) touch "$1" ;; *) touch -d '1 second ago' "$1" ;; esac
}"""
#: Define `link_assets DIRECTORY`: a name that several releases have is the file of the newest one.
#: Source: GNU cp replaces a file by a link through a rename, so that Nginx always finds it.
_LINK = """\
link_assets() {
  mkdir -p "$1/releases" "$1/files"
  find "$1/releases" -mindepth 1 -maxdepth 1 -type d ! -name '*.new' -printf '%T@ %p\\n' | sort -n | while read -r _ release; do
    cp -rlfT "$release" "$1/files" || echo "some assets of $release were not kept" >&2
  done
}"""


def prune(home: str, keep_digests: Iterable[str], mode: Mode) -> str:
    """Select the assets of images that the host does not keep. After `prune_entry` of engine/prune_entry.py.

    A file without a second link belongs to no release any more.
    """
    kept = "|".join(sorted({digest.removeprefix("sha256:") for digest in keep_digests} - {""})) or "none"
    select = (
        f"for found in {quote(home)}/assets/*/releases/*; do\n"
        '  if [ ! -d "$found" ]; then continue; fi\n'
        f'  case "${{found##*/}}" in {kept}) ;;\n'
        f'    *) prune_entry assets "$found" {size_of("found")} rm -rf "$found" ;;\n'
        "  esac\n"
        "done"
    )
    if mode is Mode.LIST:
        return select
    tidy = (
        f"for found in {quote(home)}/assets/*; do\n"
        '  if [ ! -d "$found/files" ]; then continue; fi\n'
        '  link_assets "$found"\n'
        '  find "$found/files" -type f -links 1 -delete\n'
        '  find "$found/files" -mindepth 1 -type d -empty -delete\n'
        "done"
    )
    return "\n".join((select, _LINK, tidy))
