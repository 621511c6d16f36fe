"""What the words of a command line mean for every task."""

from __future__ import annotations

import pytest

from fabfile.tasks.ending import chosen_hosts


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (None, ()),
        ("web1", ("web1",)),
        (" web1, web2 ,", ("web1", "web2")),
        # An empty variable of a script must not mean every host: such a word is refused.
        ("", ("",)),
        (",", (",",)),
        (" ", (" ",)),
    ],
)
def test_chosen_hosts_option_that_names_none_is_not_all(words: str | None, chosen: tuple[str, ...]) -> None:
    assert chosen_hosts(object(), words) == chosen
