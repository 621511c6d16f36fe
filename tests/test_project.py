"""The lock file, the Makefile and the CI run agree."""

from __future__ import annotations

import re
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rolling_upgrade import rendering

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def requirements(lines: list[str]) -> dict[str, Requirement]:
    found = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def declared_requirements() -> dict[str, Requirement]:
    return requirements((ROOT / "requirements.in").read_text("utf-8").splitlines())


def locked() -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", LOCK, re.MULTILINE))


def test_lock_every_package_has_a_version_and_hashes() -> None:
    blocks = re.split(r"\n(?=[a-z])", LOCK)[1:]

    assert len(blocks) == len(locked())
    assert all(re.search(r"\n    --hash=sha256:[0-9a-f]{64}", block) for block in blocks)


def test_lock_names_no_index_and_no_url() -> None:
    assert re.findall(r"://|--index|--extra|--find|--trusted|file:|^/", LOCK, re.MULTILINE) == []


def test_lock_contains_the_declared_dependencies() -> None:
    versions = locked()

    assert [name for name, one in declared_requirements().items() if versions[name] not in one.specifier] == []


def test_project_dependencies_match_the_input_of_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = requirements(project["dependencies"])

    assert {name: str(one) for name, one in declared.items()} == {
        name: str(declared_requirements()[name]) for name in declared
    }


def test_makefile_every_target_is_phony_and_documented() -> None:
    commands = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    explained = set(re.findall(r"^([a-z][a-z-]*):.* ## \S", MAKEFILE, re.MULTILINE))
    phony = set(" ".join(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)).split())

    assert commands == explained == phony


def test_ci_runs_only_make() -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]

    assert commands == ["make setup", "make check", "make demo", "make test"]


def test_make_check_types_every_program_for_hosts_with_the_oldest_python() -> None:
    modules = (*rendering.ENGINE_MODULES, *rendering.SITE_MODULES)
    [checked] = re.findall(r"^HOST_PROGRAMS := \$\(wildcard (.*?)\)$", MAKEFILE, re.MULTILINE | re.DOTALL)

    assert set(checked.replace("\\\n", " ").split()) == {f"{module.replace('.', '/')}.py" for module in modules}
    assert "mypy --python-version 3.10 $(HOST_PROGRAMS)" in MAKEFILE
