"""Every parser of an untrusted text returns a value or raises Malformed in bounded time, for any text."""

from __future__ import annotations

import ast
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rolling_upgrade.engine import observation as state
from rolling_upgrade.engine.model import RolloutPolicy
from rolling_upgrade.engine.prune_entry import Mode
from rolling_upgrade.engine.untrusted import Malformed
from rolling_upgrade.features.prune import retention
from tests.engine.test_observation import APP, row, text
from tests.hostile.parsers import NOT_OF_A_HOST, PARSERS

PACKAGE = Path(__file__).parents[2] / "rolling_upgrade"
#: Modules whose functions write texts for operators and read no answer of a host.
OUTPUT_MODULES = ("tasks", "workflow", "view")
#: The only other documented error of a parser: a file of the operator has an invalid line.
DOCUMENTED = {"features.report.run_report.Requests.read": (ValueError,)}
#: Calls that do not read an answer: they read options, files of the kernel, or text whose pattern bounds its digits.
TRUSTED_CALLS: dict[str, tuple[str, ...]] = {
    "console/task.py": ("if named.isdecimal()", "secrets: dict[str, str] = json.load(file)", "return int(text)"),
    "engine/untrusted.py": ("return int(text)", "value = float(text) if len", "value = json.loads(text, parse_int="),
    "engine/site/document.py": ("value = json.loads(text, object_pairs_hook=",),
    "features/init/compose.py": (
        "if match is None or match[3] in",
        "entry, item = listed[int(match[2])]",
        "int(text) for text in map(self._plain",
        "asked = int(url[1] or 80)",
        "port = port or (int(hint[1])",
        "yield int(inside)",
        "if protocol not in",
    ),
    "features/init/compose_values.py": ("return int(text) if text.isdecimal() and 0",),
    "features/lock/workflow.py": ("seconds = int(match[1])",),
    "features/observe/files.py": ("document = json.loads(text)", "texts: dict[str, str] = json.loads((TEMPLATES /"),
    "features/logs/shell.py": ("return Since(int(match[1])",),
    "features/on_host.py": ("home, run_id, position = Path(words[0])",),
    "engine/rollout.py": ("if not (number.isascii()", "return max(1, "),
    "engine/local_command.py": ("child for child, fields in stats.items()",),
    "features/watchdog/request_log.py": ("rows[names[match[1]]].add(int(match[2])",),
}
#: The limit of the processor time, in seconds, of parsing one answer of up to 10 MB.
LONGEST_SECONDS = 20.0

SMALL = {
    "empty": "",
    "a blank": " ",
    "superscript two": "²",
    "digits of another script": "٣٤",
    "full-width digits": "４２",
    "a fraction character": "½",
    "5,000 digits": "9" * 5000,
    "negative": "-1",
    "minus": "-",
    "plus": "+1",
    "under score": "1_000",
    "a point alone": ".",
    "two points": "1.2.3",
    "NaN": "NaN",
    "nan": "nan",
    "Infinity": "Infinity",
    "-inf": "-inf",
    "a huge exponent": "1e999",
    "a tiny exponent": "1e-999",
    "a large float": "9" * 300 + ".0",
    "hexadecimal": "0x1f",
    "NUL": "\0",
    "a lone surrogate": "\ud800",
    "half a character in JSON": '"\\ud800"',
    "CR": "a\rb\r",
    "colors": "\x1b[31mred\x1b[0m",
    "a title for the terminal": "\x1b]0;owned\x07",
    "C1 controls": "\x9b31m\x85",
    "the other direction": "\u202eabc\u2066",
    "line separators": "a\u2028b\u2029c\vd\fe",
    "tabs": "\t" * 40,
    "line feeds": "\n" * 100,
    "the end of a section": "\n@@end\n",
    "a section twice": "\n@@facts\nnow=1\n@@facts\n@@containers\n",
    "a verdict without a backup": "@@verdict\ngood 1\n@@end",
    "a step of one column": "@@step 1\n@@end",
    "null": "null",
    "true": "true",
    "an empty object": "{}",
    "an empty list": "[]",
    "a text": '"x"',
    "an object of objects": '{"memory": {"recoveries": 3}, "services": [], "manifests": 1}',
    "a quote": '"',
    "a backslash": "\\",
    "mark-up": "<script>alert(1)</script>",
    "a path": "../../etc/passwd",
}
NESTED = "[" * 200_000
LARGE = {
    "nested lists": NESTED,
    "nested objects": '{"a":' * 100_000,
    "nested lists in a field": f'{{"services": {NESTED}, "memory": {NESTED}}}',
    "a line of 10 MB": "x" * 10_000_000,
    "10 MB of line feeds": "\n" * 10_000_000,
    "10 MB of carriage returns": "\r" * 10_000_000,
    "a string without an end": '"' + '\\"' * 500_000,
    "a million digits": "7" * 1_000_000,
    "many sections": "@@facts\n" * 200_000,
    "many columns": "\t" * 1_000_000,
}


def outcome(name: str, text: str) -> None:
    """Parse a text and use the value. Fails for any error other than the documented ones."""
    parser = PARSERS[name]
    started_at, message = time.thread_time(), ""
    try:
        parser.show(parser.call(text))
    except Malformed as error:
        message = str(error)
    except DOCUMENTED.get(name, ()) as error:
        message = str(error)
    assert time.thread_time() - started_at < LONGEST_SECONDS
    assert len(message) < 2000


@pytest.mark.parametrize("name", PARSERS)
def test_parser_valid_answer_is_read_and_shown(name: str) -> None:
    parser = PARSERS[name]

    parser.show(parser.call(parser.good))


@pytest.mark.parametrize("value", SMALL)
@pytest.mark.parametrize("name", PARSERS)
def test_parser_hostile_word_anywhere_is_malformed_or_harmless(name: str, value: str) -> None:
    good, word = PARSERS[name].good, SMALL[value]
    outcome(name, word)
    outcome(name, good + word)
    for part in list(re.finditer(r"[A-Za-z0-9_.:-]+", good))[:150]:
        outcome(name, good[: part.start()] + word + good[part.end() :])


@pytest.mark.parametrize("value", LARGE)
@pytest.mark.parametrize("name", PARSERS)
def test_parser_large_answer_is_malformed_or_harmless(name: str, value: str) -> None:
    outcome(name, LARGE[value])
    outcome(name, PARSERS[name].good + LARGE[value])


@pytest.mark.parametrize("name", PARSERS)
def test_parser_missing_or_repeated_line_is_malformed_or_harmless(name: str) -> None:
    rows = PARSERS[name].good.split("\n")
    for at in range(len(rows)):
        outcome(name, "\n".join(rows[:at] + rows[at + 1 :]))
        outcome(name, "\n".join(rows[: at + 1] + rows[at:]))
        outcome(name, "\n".join(rows[:at]))


@pytest.mark.parametrize("name", PARSERS)
@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_parser_any_text_is_malformed_or_harmless(name: str, data: st.DataObject) -> None:
    good = PARSERS[name].good
    texts = st.text(st.characters(codec=None), max_size=200) | st.binary(max_size=200).map(
        lambda data: data.decode(errors="replace")
    )
    word = data.draw(texts | st.sampled_from([*SMALL.values()]))
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 60)))

    outcome(name, data.draw(st.sampled_from([word, good[:start] + word + good[end:]])))


def readers(path: Path) -> set[str]:
    """Return the public functions of a file that parse a text into something other than a text."""
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    functions = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            names = {arg.arg for arg in node.args.args if arg.annotation and ast.unparse(arg.annotation) == "str"}
            result = ast.unparse(node.returns) if node.returns else ""
            if names & {"text", "output", "said", "line", "answer"} and result not in {"str", "Script", "None", "Any"}:
                functions.add(f"{module}.{node.name}")
    return functions


def test_every_parser_of_an_answer_is_in_the_table() -> None:
    paths = [*PACKAGE.glob("engine/*.py"), *PACKAGE.glob("features/*/*.py")]
    names = {name for path in paths if path.stem not in OUTPUT_MODULES for name in readers(path)}

    assert names >= {"engine.lock_file.parse", "features.health.shell.parse"}
    expected = names - NOT_OF_A_HOST.keys()
    assert expected - PARSERS.keys() == set()


def test_only_bounded_readers_parse_numbers_and_documents_of_hosts() -> None:
    """No module that reads answers calls `int`, `float`, `json.loads` or `isdigit` on a text."""
    bare = re.compile(r"json\.loads?\(|\.isdigit\(|\.isdecimal\(|\.isnumeric\(|(?<![\w.])(?:int|float)\(\w*(?:text|\[)")
    paths = [path for layer in ("engine", "features", "console", "ssh") for path in (PACKAGE / layer).rglob("*.py")]
    calls = {
        (str(path.relative_to(PACKAGE)), row.strip())
        for path in paths
        for row in path.read_text("utf-8").splitlines()
        if bare.search(row)
    }

    assert {path for path, row in calls if not row.startswith(TRUSTED_CALLS.get(path, ()))} == set()


def observation(containers: int, flags: int) -> str:
    """Return the answer of a host with so many containers, half of them of another application."""
    rows = [
        row(name=f"shop-{at}", running="false", app=APP.name if at % 2 else "other", release=f"r{at}", spec=f"{at}")
        for at in range(containers)
    ]
    return text(containers="\n".join(rows), active="\n".join(f"service{at}.green" for at in range(flags)))


def test_observation_of_too_many_containers_is_refused() -> None:
    with pytest.raises(Malformed, match="web1 has more than 1000 rows of containers"):
        state.parse(APP.name, "web1", observation(48_000, 0))
    with pytest.raises(Malformed, match="web1 has more than 1000 rows of active"):
        state.parse(APP.name, "web1", observation(0, 48_000))


def test_observation_of_the_largest_number_of_containers_is_planned_in_time() -> None:
    started_at = time.thread_time()
    observed = state.parse(APP.name, "web1", observation(1000, 1000))
    planned = retention.prune(observed, APP, RolloutPolicy(), Mode.QUIET)

    assert (len(observed.containers), len(observed.foreign), "shop-999" in planned) == (500, 500, True)
    assert time.thread_time() - started_at < LONGEST_SECONDS / 4
