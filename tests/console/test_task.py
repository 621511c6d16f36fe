"""The directory of the configuration, and the selected hosts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from rolling_upgrade.console.task import root, root_or_here, selected_hosts, split_words
from rolling_upgrade.errors import ConfigError, ExitCode


def test_root_is_the_nearest_directory_with_hosts_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "outer" / "inner"
    (inner / "deploy").mkdir(parents=True)
    for directory in (tmp_path / "outer", inner):
        (directory / "hosts.yaml").touch()
    monkeypatch.chdir(inner / "deploy")

    assert root() == root_or_here() == inner


def test_root_without_hosts_yaml_raises_and_names_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert root_or_here() == tmp_path
    with pytest.raises(ConfigError, match="rolling-upgrade init") as caught:
        root()
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, ()),
        ([], ()),
        (["web1"], ("web1",)),
        ([" web1, web2 ,"], ("web1", "web2")),
        (["web1", "web2, web3"], ("web1", "web2", "web3")),
        # An empty variable in a script must not select every host.
        ([""], ("",)),
        ([" "], (" ",)),
        ([","], (",",)),
        (["", "web1"], ("web1",)),
    ],
)
def test_selected_hosts_of_an_empty_option_are_not_all_hosts(given: list[str] | None, found: tuple[str, ...]) -> None:
    assert selected_hosts(SimpleNamespace(), given) == found


def test_selected_hosts_without_an_option_are_the_host_of_fab() -> None:
    assert selected_hosts(SimpleNamespace(original_host="web1"), None) == ("web1",)
    assert selected_hosts(SimpleNamespace(original_host="web1"), ["web2"]) == ("web2",)


def test_split_words_without_an_option_is_empty() -> None:
    assert split_words(None) == ()
