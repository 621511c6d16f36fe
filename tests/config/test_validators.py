"""The validators of single values."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from rolling_upgrade.config import validators
from rolling_upgrade.engine.model import Image

GOOD: list[tuple[validators.Validator[Any], str, object]] = [
    (validators.duration(0, 600), "30s", 30.0),
    (validators.duration(0, 600), "1m", 60.0),
    (validators.duration(0, 600), "500ms", 0.5),
    (validators.duration(0, 600), "1m30s", 90.0),
    (validators.duration(0, 600), "15", 15.0),
    (validators.duration(0, 7200), "1.5h", 5400.0),
    (validators.SIZE, "1GB", 1024**3),
    (validators.SIZE, "512MB", 512 * 1024**2),
    (validators.SIZE, "100M", 100 * 1024**2),
    (validators.SIZE, "1.5GiB", 3 * 1024**3 // 2),
    (validators.SIZE, "64k", 65536),
    (validators.SIZE, "1000000", 1_000_000),
    (validators.BOOLEAN, "Yes", True),
    (validators.BOOLEAN, "off", False),
    (validators.PORT, "65535", 65535),
    (validators.SERVICE_PORT, "45535", 45535),
    (validators.CPUS, "0.5", 0.5),
    (validators.CPUS, "2", 2.0),
    (validators.APP_NAME, "memoryark-staging", "memoryark-staging"),
    (validators.HOST_PATH, "/srv/data/", "/srv/data"),
    (validators.HOST_PATH, "/srv/資料", "/srv/資料"),
    (validators.IMAGE, "localhost:5000/a/b:v1", Image("localhost:5000/a/b", "v1")),
    (validators.TAG, "v2.0.1-rc.1", "v2.0.1-rc.1"),
    (validators.DOMAIN, "files.example.org", "files.example.org"),
    (validators.ADDRESS, "2001:DB8::1", "2001:db8::1"),
    (validators.IP_ADDRESS, "2001:DB8::1", "2001:db8::1"),
    (validators.PATH_OR_NONE, "None", "none"),
    (validators.PATH_OR_NONE, "/srv/metrics/", "/srv/metrics"),
    (validators.ADDRESS, "web-1.example.org", "web-1.example.org"),
    (validators.JUMP, "admin@bastion.example.org:2222", "admin@bastion.example.org:2222"),
    (validators.JUMP, "none", "none"),
    (validators.BATCH, "25%", "25%"),
    (validators.RESTART_POLICY, "on-failure:3", "on-failure:3"),
    (validators.SCHEDULE, "0 2 * * *", "0 2 * * *"),
    (validators.SCHEDULE, "*/15 8-18 * * mon-fri", "*/15 8-18 * * mon-fri"),
    (validators.SCHEDULE, "@daily", "@daily"),
    (validators.WEB_URL, "https://hooks.example.org/a?b=c", "https://hooks.example.org/a?b=c"),
    (validators.SENDER, "MemoryArk <ark@example.org>", "MemoryArk <ark@example.org>"),
    (validators.RECIPIENTS, "a@example.org, B <b@example.org>", "a@example.org, B <b@example.org>"),
    (validators.LANGUAGE, "zh-TW", "zh-TW"),
    (validators.one_of("http", "https"), "HTTPS", "https"),
    (validators.LOCAL_FILE, "~/.ssh/id_ed25519", "~/.ssh/id_ed25519"),
]

BAD: list[tuple[validators.Validator[Any], str]] = [
    (validators.duration(0, 600), "30 seconds"),
    (validators.duration(0, 600), "11m"),
    (validators.duration(0, 600), "-1"),
    (validators.duration(0, 600), "nan"),
    (validators.duration(0, 600), "1e3"),
    (validators.duration(0, 600), "٣"),
    (validators.SIZE, "1XB"),
    (validators.SIZE, "0"),
    (validators.SIZE, "-1M"),
    (validators.SIZE, "9999999T"),
    (validators.MEMORY, "1M"),
    (validators.BOOLEAN, "maybe"),
    (validators.PORT, "0"),
    (validators.PORT, "65536"),
    (validators.PORT, "8_080"),
    (validators.PORT, "80.0"),
    (validators.PORT, " 80"),
    (validators.SERVICE_PORT, "45536"),
    (validators.SERVICE_PORT, "1023"),
    (validators.CPUS, "0"),
    (validators.CPUS, "inf"),
    (validators.CPUS, "1,5"),
    (validators.APP_NAME, "MemoryArk"),
    (validators.APP_NAME, "-rf"),
    (validators.APP_NAME, "a" * 32),
    (validators.APP_NAME, "a\n"),
    (validators.APP_NAME, "a;reboot"),
    (validators.HOST_PATH, "relative/path"),
    (validators.HOST_PATH, "/"),
    (validators.HOST_PATH, "/srv/../etc"),
    (validators.HOST_PATH, "/srv//data"),
    (validators.HOST_PATH, "/srv/data:ro"),
    (validators.HOST_PATH, "/srv/a,b"),
    (validators.HOST_PATH, "/srv/a b"),
    (validators.HOST_PATH, "/srv/$(reboot)"),
    (validators.HOST_PATH, "/srv/a;"),
    (validators.HOST_PATH, "/srv/a\n"),
    (validators.HOST_PATH, "/srv/a\u202e"),
    (validators.FILE_PATH, "/etc/ssl/"),
    (validators.FILE_IN_DIRECTORY, "/memoryark.db"),
    (validators.IMAGE, "Backend"),
    (validators.IMAGE, "backend:v1;reboot"),
    (validators.IMAGE, "--privileged"),
    (validators.IMAGE, "a b"),
    (validators.IMAGE, "backend@sha256:1234"),
    (validators.TAG, "-x"),
    (validators.TAG, "v1 --privileged"),
    (validators.TAG, "v1\n"),
    (validators.TAG, "版本"),
    (validators.DOMAIN, "files.example.org;"),
    (validators.DOMAIN, "-files.example.org"),
    (validators.DOMAIN, "*.example.org"),
    (validators.DOMAIN, "a_b.example.org"),
    (validators.DOMAIN, "a" * 64 + ".org"),
    (validators.ADDRESS, "-oProxyCommand=reboot"),
    (validators.IP_ADDRESS, "web1.example.org"),
    (validators.IP_ADDRESS, "fe80::1%eth0"),
    (validators.IP_ADDRESS, "192.0.2.0/24"),
    (validators.PATH_OR_NONE, "/"),
    (validators.PATH_OR_NONE, "nothing"),
    (validators.ADDRESS, "web1 web2"),
    (validators.USER, "root; id"),
    (validators.USER, "-l"),
    (validators.JUMP, "bastion:70000"),
    (validators.JUMP, "-oProxyCommand=x"),
    (validators.BATCH, "0"),
    (validators.BATCH, "101%"),
    (validators.BATCH, "half"),
    (validators.RESTART_POLICY, "on-failure:x"),
    (validators.RESTART_POLICY, "sometimes"),
    (validators.SCHEDULE, "0 2 * *"),
    (validators.SCHEDULE, "0 2 * * * root rm"),
    (validators.WEB_URL, "ftp://example.org"),
    (validators.WEB_URL, "https://"),
    (validators.WEB_URL, "https://a b"),
    (validators.WEB_URL, "https://[::1"),
    (validators.EMAIL, "nobody"),
    (validators.EMAIL, "a@example.org\nBcc: b@example.org"),
    (validators.SENDER, "A\r\nBcc: x <a@example.org>"),
    (validators.URL_PATH, "health"),
    (validators.URL_PATH, "//health"),
    (validators.URL_PATH, "/a;b"),
    (validators.URL_PATH, "/a{b"),
    (validators.URL_PATH, "/$uri"),
    (validators.LOCAL_FILE, "~nobody/key"),
]


@pytest.mark.parametrize(("validator", "text", "value"), GOOD)
def test_validator_valid_text_is_parsed(validator: validators.Validator[Any], text: str, value: object) -> None:
    assert validator(text) == value


@pytest.mark.parametrize(("validator", "text"), BAD)
def test_validator_invalid_text_raises_the_expectation(validator: validators.Validator[Any], text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        validator(text)
    assert str(caught.value) == validator.expected


def test_validator_non_text_raises_the_expectation() -> None:
    with pytest.raises(ValueError, match="a port"):
        validators.PORT(["80"])


@pytest.mark.parametrize(
    "character", ["\x00", "\x1f", "\x7f", "\x80", "\x82", "\x85", "\x9f", "\u2028", "\u2029", "\ufffe", "\uffff"]
)
@pytest.mark.parametrize(
    ("validator", "text"),
    [
        (validators.TEXT, "a{}b"),
        (validators.SENDER, "A{}B <a@example.org>"),
        (validators.RECIPIENTS, "a@example.org, A{}B <b@example.org>"),
        (validators.LOCAL_FILE, "a{}b"),
    ],
)
def test_text_with_an_unprintable_character_is_refused(
    validator: validators.Validator[str], text: str, character: str
) -> None:
    assert validator(text.format("é資🚀")) == text.format("é資🚀")
    with pytest.raises(ValueError, match=re.escape(validator.expected)):
        validator(text.format(character))


def test_text_accepted_by_the_validator_can_be_written_as_yaml() -> None:
    for number in (*range(0x3000), *range(0xE000, 0x10000), 0x1F680):
        text = f"a{chr(number)}b"
        if re.fullmatch(rf"[^{validators.UNPRINTABLE}]*", text):
            assert yaml.safe_load(json.dumps(text, ensure_ascii=False)) == text
