"""The strict forms of single values."""

from __future__ import annotations

from typing import Any

import pytest

from fabfile.config import forms
from fabfile.model import Image

GOOD: list[tuple[forms.Form[Any], str, object]] = [
    (forms.duration(0, 600), "30s", 30.0),
    (forms.duration(0, 600), "1m", 60.0),
    (forms.duration(0, 600), "500ms", 0.5),
    (forms.duration(0, 600), "1m30s", 90.0),
    (forms.duration(0, 600), "15", 15.0),
    (forms.duration(0, 7200), "1.5h", 5400.0),
    (forms.SIZE, "1GB", 1024**3),
    (forms.SIZE, "512MB", 512 * 1024**2),
    (forms.SIZE, "100M", 100 * 1024**2),
    (forms.SIZE, "1.5GiB", 3 * 1024**3 // 2),
    (forms.SIZE, "64k", 65536),
    (forms.SIZE, "1000000", 1_000_000),
    (forms.BOOLEAN, "Yes", True),
    (forms.BOOLEAN, "off", False),
    (forms.PORT, "65535", 65535),
    (forms.STABLE_PORT, "45535", 45535),
    (forms.CPUS, "0.5", 0.5),
    (forms.CPUS, "2", 2.0),
    (forms.APP_NAME, "memoryark-staging", "memoryark-staging"),
    (forms.HOST_PATH, "/srv/data/", "/srv/data"),
    (forms.HOST_PATH, "/srv/資料", "/srv/資料"),
    (forms.IMAGE, "localhost:5000/a/b:v1", Image("localhost:5000/a/b", "v1")),
    (forms.TAG, "v2.0.1-rc.1", "v2.0.1-rc.1"),
    (forms.DOMAIN, "files.example.org", "files.example.org"),
    (forms.ADDRESS, "2001:DB8::1", "2001:db8::1"),
    (forms.IP_ADDRESS, "2001:DB8::1", "2001:db8::1"),
    (forms.PATH_OR_NONE, "None", "none"),
    (forms.PATH_OR_NONE, "/srv/metrics/", "/srv/metrics"),
    (forms.ADDRESS, "web-1.example.org", "web-1.example.org"),
    (forms.JUMP, "admin@bastion.example.org:2222", "admin@bastion.example.org:2222"),
    (forms.JUMP, "none", "none"),
    (forms.BATCH, "25%", "25%"),
    (forms.RESTART_POLICY, "on-failure:3", "on-failure:3"),
    (forms.SCHEDULE, "0 2 * * *", "0 2 * * *"),
    (forms.SCHEDULE, "*/15 8-18 * * mon-fri", "*/15 8-18 * * mon-fri"),
    (forms.SCHEDULE, "@daily", "@daily"),
    (forms.WEB_URL, "https://hooks.example.org/a?b=c", "https://hooks.example.org/a?b=c"),
    (forms.REDIS_URL, "redis://:secret@cache:6379/0", "redis://:secret@cache:6379/0"),
    (forms.SENDER, "MemoryArk <ark@example.org>", "MemoryArk <ark@example.org>"),
    (forms.RECIPIENTS, "a@example.org, B <b@example.org>", "a@example.org, B <b@example.org>"),
    (forms.LANGUAGE, "zh-TW", "zh-TW"),
    (forms.one_of("http", "https"), "HTTPS", "https"),
    (forms.LOCAL_FILE, "~/.ssh/id_ed25519", "~/.ssh/id_ed25519"),
]

BAD: list[tuple[forms.Form[Any], str]] = [
    (forms.duration(0, 600), "30 seconds"),
    (forms.duration(0, 600), "11m"),
    (forms.duration(0, 600), "-1"),
    (forms.duration(0, 600), "nan"),
    (forms.duration(0, 600), "1e3"),
    (forms.duration(0, 600), "٣"),
    (forms.SIZE, "1XB"),
    (forms.SIZE, "0"),
    (forms.SIZE, "-1M"),
    (forms.SIZE, "9999999T"),
    (forms.MEMORY, "1M"),
    (forms.BOOLEAN, "maybe"),
    (forms.PORT, "0"),
    (forms.PORT, "65536"),
    (forms.PORT, "8_080"),
    (forms.PORT, "80.0"),
    (forms.PORT, " 80"),
    (forms.STABLE_PORT, "45536"),
    (forms.CPUS, "0"),
    (forms.CPUS, "inf"),
    (forms.CPUS, "1,5"),
    (forms.APP_NAME, "MemoryArk"),
    (forms.APP_NAME, "-rf"),
    (forms.APP_NAME, "a" * 32),
    (forms.APP_NAME, "a\n"),
    (forms.APP_NAME, "a;reboot"),
    (forms.HOST_PATH, "relative/path"),
    (forms.HOST_PATH, "/"),
    (forms.HOST_PATH, "/srv/../etc"),
    (forms.HOST_PATH, "/srv//data"),
    (forms.HOST_PATH, "/srv/data:ro"),
    (forms.HOST_PATH, "/srv/a,b"),
    (forms.HOST_PATH, "/srv/a b"),
    (forms.HOST_PATH, "/srv/$(reboot)"),
    (forms.HOST_PATH, "/srv/a;"),
    (forms.HOST_PATH, "/srv/a\n"),
    (forms.HOST_PATH, "/srv/a\u202e"),
    (forms.FILE_PATH, "/etc/ssl/"),
    (forms.FILE_IN_DIRECTORY, "/memoryark.db"),
    (forms.IMAGE, "Backend"),
    (forms.IMAGE, "backend:v1;reboot"),
    (forms.IMAGE, "--privileged"),
    (forms.IMAGE, "a b"),
    (forms.IMAGE, "backend@sha256:1234"),
    (forms.TAG, "-x"),
    (forms.TAG, "v1 --privileged"),
    (forms.TAG, "v1\n"),
    (forms.TAG, "版本"),
    (forms.DOMAIN, "files.example.org;"),
    (forms.DOMAIN, "-files.example.org"),
    (forms.DOMAIN, "*.example.org"),
    (forms.DOMAIN, "a_b.example.org"),
    (forms.DOMAIN, "a" * 64 + ".org"),
    (forms.ADDRESS, "-oProxyCommand=reboot"),
    (forms.IP_ADDRESS, "web1.example.org"),
    (forms.IP_ADDRESS, "fe80::1%eth0"),
    (forms.IP_ADDRESS, "192.0.2.0/24"),
    (forms.PATH_OR_NONE, "/"),
    (forms.PATH_OR_NONE, "nothing"),
    (forms.ADDRESS, "web1 web2"),
    (forms.USER, "root; id"),
    (forms.USER, "-l"),
    (forms.JUMP, "bastion:70000"),
    (forms.JUMP, "-oProxyCommand=x"),
    (forms.BATCH, "0"),
    (forms.BATCH, "101%"),
    (forms.BATCH, "half"),
    (forms.RESTART_POLICY, "on-failure:x"),
    (forms.RESTART_POLICY, "sometimes"),
    (forms.SCHEDULE, "0 2 * *"),
    (forms.SCHEDULE, "0 2 * * * root rm"),
    (forms.WEB_URL, "ftp://example.org"),
    (forms.WEB_URL, "https://"),
    (forms.WEB_URL, "https://a b"),
    (forms.WEB_URL, "https://[::1"),
    (forms.EMAIL, "nobody"),
    (forms.EMAIL, "a@example.org\nBcc: b@example.org"),
    (forms.SENDER, "A\r\nBcc: x <a@example.org>"),
    (forms.URL_PATH, "health"),
    (forms.URL_PATH, "//health"),
    (forms.URL_PATH, "/a;b"),
    (forms.URL_PATH, "/a{b"),
    (forms.URL_PATH, "/$uri"),
    (forms.LOCAL_FILE, "~nobody/key"),
]


@pytest.mark.parametrize(("form", "text", "value"), GOOD)
def test_form_good_text_gives_its_value(form: forms.Form[Any], text: str, value: object) -> None:
    assert form(text) == value


@pytest.mark.parametrize(("form", "text"), BAD)
def test_form_bad_text_says_what_is_expected(form: forms.Form[Any], text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        form(text)
    assert str(caught.value) == form.expected


def test_form_something_else_than_text_is_refused() -> None:
    with pytest.raises(ValueError, match="a port"):
        forms.PORT(["80"])
