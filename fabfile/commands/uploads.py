"""Uploaded files on the host: an incremental copy that shares unchanged files with the one before. Runs nothing.

Source: rsync(1), --link-dest: a file whose size and time are unchanged becomes a hard link and costs nothing;
sha256sum(1): names with line breaks or backslashes are escaped, and `--check` reads them so.
"""

from __future__ import annotations

from fabfile.commands.shell import quote, words

#: What a restore sets aside beside the files; never part of a backup.
_OURS = ("/.before-*", "/.restored-*")
RSYNC = ("rsync", "--archive", "--numeric-ids", *(f"--exclude={name}" for name in _OURS))


def functions() -> str:
    """Shell functions for `copy`: names as sha256sum writes them, and hashes taken over from an earlier backup."""
    return """\
escaped_names() {
  find . -type f "$@" -print0 | sed -z 's/\\\\/\\\\\\\\/g; s/\\n/\\\\n/g' | tr '\\000' '\\n'
}
taken_over() {
  awk 'FILENAME == ARGV[1] { line = $0; sub(/^\\\\/, "", line); hash[substr(line, 67)] = substr(line, 1, 64); next }
    !($0 in hash) { missing = 1; exit 1 }
    { print ($0 ~ /\\\\/ ? "\\\\" : "") hash[$0] "  " $0 }
    END { exit missing }' "$1" -
}"""


def room(source: str) -> str:
    """A shell text: sets `previous`, the newest copy's files or '', and `new_kib`, what a copy will take beyond it.

    `$latest` is the directory of the newest copy, '' for none.
    """
    stats = words(*RSYNC, "--dry-run", "--stats", "--no-human-readable")
    return f"""\
previous=''
if [ -n "$latest" ] && [ -d "$latest/files" ]; then previous=$latest/files; fi
new_kib=$({stats} ${{previous:+"--link-dest=$previous"}} {quote(source + "/")} "$uploads_part/files/" |
  awk -F ': ' '/^Total transferred file size/ {{ print int($2 / 1024) + 1 }}')"""


def copy(source: str) -> str:
    """Copy the files into `$uploads_part/files`, hash what is new; the list of hashes goes to `$uploads_list`.

    Sets `uploads` and `uploads_bytes`. A file that vanishes meanwhile is no error (rsync's status 24): it was
    deleted. The hashes of unchanged files are those of the backup before, so that rot on the disk shows later.
    """
    return f"""\
status=0
{words(*RSYNC)} ${{previous:+"--link-dest=$previous"}} {quote(source + "/")} "$uploads_part/files/" || status=$?
if [ "$status" -ne 0 ] && [ "$status" -ne 24 ]; then echo "the uploads could not be copied (rsync: $status)"; exit 1; fi
cd "$uploads_part/files"
find . -type f -links 1 -exec sha256sum {{}} + > "$uploads_list"
if ! escaped_names -links +1 | taken_over "$previous_list" >> "$uploads_list" 2>/dev/null; then
  find . -type f -exec sha256sum {{}} + > "$uploads_list"
fi
uploads=$(wc -l < "$uploads_list")
uploads_bytes=$(find . -type f -printf '%s\\n' | awk '{{ sum += $1 }} END {{ printf "%.0f", sum }}')"""


def check(directory: str, count: int) -> str:
    """A shell function `uploads_whole LIST SCRATCH-FILE`: compare every file of a copy with its hash, and their number."""
    return f"""\
uploads_whole() {{
  cd {quote(directory)} || return 1
  if [ -s "$1" ] && ! sha256sum --check --strict --quiet "$1" > "$2" 2>&1; then head -n 5 "$2"; return 1; fi
  found=$(find . -type f -printf x | wc -c)
  if [ "$found" -ne {count} ]; then echo "$found uploaded files, and not {count}"; return 1; fi
}}"""
