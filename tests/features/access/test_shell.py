"""Render an authorized_keys file with the managed block, and parse the entries of its lines."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rolling_upgrade.features.access.shell import entries, render, unparsed_lines
from tests.support.ssh_keys import ed25519, key

ALICE, BOB = ("alice", key(1)), ("bob", key(2))
BLOCK = "shop production"
OTHER = f"# BEGIN inv access: shop staging\n{ed25519(1)} alice\n# END inv access: shop staging\n"


def write(text: str, *keys: tuple[str, object], revoked: tuple[str, ...] = (), exclusive: bool = False) -> str:
    return render(text, BLOCK, keys, revoked, exclusive=exclusive)  # type: ignore[arg-type]


def let_in(text: str, block: str = BLOCK) -> list[str]:
    return [entry.key.comment for entry in entries(text) if entry.block == block]


def test_rendered_empty_file_contains_only_the_block(tmp_path: Path) -> None:
    text = write("", ALICE, BOB)

    assert let_in(text) == ["alice", "bob"]
    assert text.startswith("# BEGIN inv access: shop production\n")
    (tmp_path / "keys").write_text(text)
    listed = subprocess.run(["ssh-keygen", "-lf", tmp_path / "keys"], capture_output=True, text=True, check=True)
    assert [line.split()[1] for line in listed.stdout.splitlines()] == [ALICE[1].fingerprint, BOB[1].fingerprint]


def test_rendered_again_changes_nothing() -> None:
    text = write(f"# mine\n\n{ed25519(9)} carol", ALICE, BOB)

    assert write(text, ALICE, BOB) == text


def test_rendered_key_that_is_not_granted_is_removed_from_the_block() -> None:
    assert let_in(write(write("", ALICE, BOB), ALICE)) == ["alice"]


def test_rendered_unmanaged_lines_keep_their_place() -> None:
    text = write(f"# mine\n{ed25519(9)} carol\nnonsense here\n", ALICE)

    assert text.startswith(f"# mine\n{ed25519(9)} carol\nnonsense here\n# BEGIN")


def test_rendered_exclusive_removes_unmanaged_lines_except_comments_and_other_blocks() -> None:
    text = write(f"# mine\n{ed25519(9)} carol\nnonsense here\n{OTHER}", ALICE, exclusive=True)

    assert [entry.block for entry in entries(text)] == ["shop staging", BLOCK]
    assert text.startswith("# mine\n# BEGIN inv access: shop staging\n")


def test_rendered_granted_key_outside_of_the_block_moves_into_it() -> None:
    text = write(f'command="x y",no-pty {ed25519(1)} old\n{ed25519(1)} twice\n', ALICE)

    assert [(entry.block, entry.options) for entry in entries(text)] == [(BLOCK, "")]


def test_rendered_revoked_key_is_removed_outside_of_other_blocks() -> None:
    text = write(f'from="10.0.0.1" {ed25519(2)} b\n{OTHER}', ALICE, revoked=(BOB[1].blob, ALICE[1].blob))

    assert [(entry.block, entry.key.comment) for entry in entries(text)] == [
        ("shop staging", "alice"),
        (BLOCK, "alice"),
    ]


def test_rendered_block_of_another_environment_is_kept() -> None:
    assert OTHER in write(OTHER, ALICE, BOB)
    assert let_in(write(OTHER, BOB), "shop staging") == ["alice"]


@pytest.mark.parametrize(
    "text",
    [
        f"# BEGIN inv access: {BLOCK}\n{ed25519(9)} carol\n",
        f"# BEGIN inv access: {BLOCK}\n{ed25519(9)} carol\n{OTHER}",
        f"{ed25519(9)} carol\n# END inv access: {BLOCK}\n",
    ],
)
def test_rendered_incomplete_block_keeps_other_keys(text: str) -> None:
    done = write(text, ALICE)

    assert "carol" in let_in(done, "")
    assert let_in(done) == ["alice"]
    assert write(done, ALICE) == done


def test_rendered_second_block_of_the_same_name_is_removed() -> None:
    text = write("", ALICE)

    assert let_in(write(text + text, ALICE, BOB)) == ["alice", "bob"]


def test_rendered_invalid_utf8_is_kept() -> None:
    foreign = b"# caf\xe9\n".decode(errors="surrogateescape")

    assert write(foreign, ALICE).startswith(foreign)


@pytest.mark.parametrize(
    ("line", "options", "comment"),
    [
        (f"{ed25519(1)} a b", "", "a b"),
        (f'command="echo \\"ssh-rsa x\\" y" {ed25519(1)}', 'command="echo \\"ssh-rsa x\\" y"', ""),
        (f'no-pty,from="*.test, !x"\t{ed25519(1)} c', 'no-pty,from="*.test, !x"', "c"),
        (f"  {ed25519(1)}", "", ""),
        (f"cert-authority {ed25519(1)} ca", "cert-authority", "ca"),
    ],
)
def test_entries_line_with_a_key_is_an_entry(line: str, options: str, comment: str) -> None:
    (entry,) = entries(line + "\n")

    assert (entry.options, entry.key.comment, entry.blob) == (options, comment, key(1).blob)


@pytest.mark.parametrize("line", ["", "#", f"# {ed25519(1)}", "nonsense", 'command="open', "ssh-ed25519", "ssh-rsa !"])
def test_entries_line_without_a_key_is_no_entry(line: str) -> None:
    assert entries(f"{line}\n") == ()


@pytest.mark.parametrize("junk", ["\x00junk", "!"])
def test_unread_line_is_reported_and_removed_with_its_revoked_key(junk: str) -> None:
    text = f"# a note\n\n{ed25519(3)} carol\nssh-ed25519 {key(1).blob}{junk}\n"

    assert unparsed_lines(text) == (4,)
    assert unparsed_lines(write(text, BOB, revoked=(key(1).blob,))) == ()
    assert unparsed_lines(write(text, BOB)) == (4,)
    assert unparsed_lines(write(text, BOB, exclusive=True)) == ()


def test_entries_key_with_the_name_of_its_signature_is_an_entry() -> None:
    (entry,) = entries(f"rsa-sha2-512 {key(1).blob} x\n")

    assert entry.blob == key(1).blob
