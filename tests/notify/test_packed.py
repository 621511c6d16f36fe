"""What a host gets: the layers that messages need, packed into one file, run by a Python with nothing installed."""

from __future__ import annotations

import subprocess
import sys
import zipapp
from pathlib import Path
from shutil import copytree, ignore_patterns

from fabfile import render
from fabfile.notify.text import compose
from tests.notify.notices import notice
from tests.notify.receiver import receiving, slack

PACKAGE = Path(render.__file__).parent
MAIN = """\
import pkgutil, sys
from fabfile.model.channels import Channels, Hook
from fabfile.model.notice import Notice, Occasion, Passage
from fabfile.notify import send

def read(name):
    return pkgutil.get_data("fabfile", f"templates/notify/{name}").decode()

hosts = ("web1", "web2")
notice = Notice(Occasion.CHECK_FAILING, "memoryark", "production", "t", 1795403565.0, hosts=hosts, check="backend")
print(*send(notice, Channels(slack=Hook(sys.argv[1]), language="zh-TW"), read=read))
"""


def test_packed_into_one_file_the_same_words_are_sent(tmp_path: Path) -> None:
    for part in ("model", "notify"):
        copytree(PACKAGE / part, tmp_path / "app/fabfile" / part, ignore=ignore_patterns("__pycache__"))
    copytree(render.TEMPLATES / "notify", tmp_path / "app/fabfile/templates/notify")
    for name in ("__init__.py", "errors.py"):
        (tmp_path / "app/fabfile" / name).write_text((PACKAGE / name).read_text("utf-8"), "utf-8")
    (tmp_path / "app/__main__.py").write_text(MAIN, "utf-8")
    zipapp.create_archive(tmp_path / "app", tmp_path / "packed.pyz")

    with receiving(judge=slack) as receiver:
        command = [sys.executable, "-I", "-S", str(tmp_path / "packed.pyz"), receiver.url()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    expected = compose(notice(), "zh-TW", render.notice_template).footer
    assert "error=''" in done.stdout
    blocks = receiver.requests[0].json["blocks"]
    assert "異常：web1, web2 的 backend" in blocks[0]["text"]["text"]
    assert blocks[-1]["elements"][0]["text"] == expected
