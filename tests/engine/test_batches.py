"""The order of the hosts of a run, in batches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolling_upgrade.engine import rollout


@pytest.mark.parametrize(
    ("batch", "hosts", "size"),
    [
        ("1", 5, 1),
        ("3", 5, 3),
        ("9", 5, 9),
        (" 2 ", 5, 2),
        ("100%", 5, 5),
        ("50%", 5, 3),
        ("25%", 4, 1),
        ("1%", 5, 1),
        ("34%", 3, 2),
        ("200%", 5, 10),
    ],
)
def test_batch_size_of_a_number_or_percentage(batch: str, hosts: int, size: int) -> None:
    assert rollout.batch_size(batch, hosts) == size


@pytest.mark.parametrize("batch", ["", "0", "0%", "-1", "1.5", "a", "%", "10%%", "1 %x", "half"])
def test_batch_size_of_an_invalid_batch_is_refused(batch: str) -> None:
    with pytest.raises(ValueError, match="neither a number of hosts nor a percentage"):
        rollout.batch_size(batch, 5)


@pytest.mark.parametrize(
    ("batch", "split"),
    [
        ("2", (("a", "b"), ("c", "d"), ("e",))),
        ("100%", (("a", "b", "c", "d", "e"),)),
        ("1", (("a",), ("b",), ("c",), ("d",), ("e",))),
    ],
)
def test_split_batches_keeps_the_order(batch: str, split: tuple[tuple[str, ...], ...]) -> None:
    assert rollout.split_batches(["a", "b", "c", "d", "e"], batch) == split


def test_split_batches_of_no_hosts_is_empty() -> None:
    assert rollout.split_batches([], "50%") == ()


@given(st.lists(st.text(), unique=True), st.integers(1, 300), st.booleans())
def test_split_batches_every_host_is_in_exactly_one_batch(names: list[str], number: int, share: bool) -> None:
    found = rollout.split_batches(names, f"{number}%" if share else str(number))

    assert [name for batch in found for name in batch] == names
    assert all(found)
