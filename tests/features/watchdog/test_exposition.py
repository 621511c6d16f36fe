"""The text format for Prometheus: escapes, masking, and malformed input."""

from __future__ import annotations

import pytest

from rolling_upgrade.features.watchdog.exposition import Family, counter, exposition, gauge, sample
from tests.support.prometheus import read

COMMON = {"app": "shop", "environment": "production"}


def test_exposition_has_help_and_type_once_and_every_label() -> None:
    text = exposition([gauge("up", "It runs", sample(1, service="a"), sample(0.25, service="b"))], COMMON)

    assert text.splitlines() == [
        "# HELP up It runs",
        "# TYPE up gauge",
        'up{app="shop",environment="production",service="a"} 1',
        'up{app="shop",environment="production",service="b"} 0.25',
    ]


def test_exposition_leaves_out_empty_families_and_repeated_series() -> None:
    text = exposition([gauge("nothing", "x"), counter("a_total", "x", sample(1, b="c"), sample(2, b="c"))], COMMON)

    assert read(text).samples == {("a_total", frozenset({**COMMON, "b": "c"}.items())): 1.0}


@pytest.mark.parametrize(
    "value",
    [
        'a "b" c',
        "back\\slash",
        "two\nlines",
        "tab\tand \x1b[31mred",
        "}{,=",
        "żółć",
        "x" * 5000,
        "\ud800",
        '\\"',
        "\\n",
    ],
)
def test_exposition_label_of_any_text_is_one_line_that_parses(value: str) -> None:
    text = exposition([gauge("a", "x", sample(1, reason=value))], {})

    assert len(text.splitlines()) == 3
    ((_, labels),) = read(text).samples
    found = dict(labels)["reason"]
    assert len(found) <= 200
    assert found == value or not value.isprintable() or len(value) > 200


def test_exposition_masks_secrets_in_labels() -> None:
    text = exposition([gauge("a", "x", sample(1, reason="see https://hook/T1/s3cr3t!"))], {}, ("s3cr3t!",))

    assert "s3cr3t" not in text


@pytest.mark.parametrize(
    ("value", "written"), [(1_795_403_565, "1795403565"), (0.1, "0.1"), (float("inf"), "+Inf"), (True, "1")]
)
def test_exposition_writes_whole_numbers_without_a_fraction(value: float, written: str) -> None:
    assert exposition([gauge("a", "x", sample(value))], {}).endswith(f"a{{}} {written}\n")


def test_exposition_of_an_invalid_metric_name_raises() -> None:
    with pytest.raises(ValueError, match="is not a metric name"):
        exposition([Family("a b", "gauge", "x", (sample(1),))], {})
