"""Tasks as CI jobs: exit codes, summaries, annotations, masked secrets, and the key, which is never in a file."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import job

ROOT = Path(__file__).parents[2]
SUMMARY = {
    "type": "summary",
    "action": "deploy",
    "environment": "production",
    "release": "r1",
    "message": "web1 upgraded.",
    "undo_command": "inv rollback --env production",
    "hosts": [
        {"host": "web1", "result": "upgraded", "seconds": 12.34, "images": {"backend": "r/b:v2"}, "cause": ""},
        {"host": "web2", "result": "undone", "seconds": 1, "images": {}, "cause": "gate | <b>failed</b>\nfor it"},
    ],
}


def run_job(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "JOB_", "DEPLOY_"))}
    command = [sys.executable, "scripts/job.py", *words]
    return subprocess.run(
        command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_job_exits_with_the_code_of_its_task_and_writes_a_summary(tmp_path: Path) -> None:
    page = tmp_path / "summary.md"

    done = run_job("deploy", "--env", "nowhere", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(page))

    assert (done.returncode, "Unknown environment 'nowhere'" in done.stderr) == (2, True)
    assert done.stdout.startswith("::error title=inv deploy failed::Unknown environment 'nowhere'. Environments: ")
    assert done.stdout.count("\n") == 1
    assert page.read_text() == "### inv deploy: failed, exit code 2\n\n"


def test_job_without_a_task_prints_usage() -> None:
    assert (run_job().returncode, "usage" in run_job().stderr) == (2, True)


def test_job_outside_of_github_has_no_annotation(tmp_path: Path) -> None:
    page = tmp_path / "summary.md"

    done = run_job("status", "--env", "nowhere", JOB_SUMMARY=str(page))

    assert (done.returncode, done.stdout, "failed" in page.read_text()) == (2, "", True)


def test_job_key_is_loaded_into_an_agent_and_every_line_is_masked(tmp_path: Path) -> None:
    key = new_key(tmp_path)

    done = run_job("config.check", DEPLOY_SSH_KEY=key, GITHUB_ACTIONS="true")

    hidden = {line.removeprefix("::add-mask::") for line in done.stdout.splitlines() if line.startswith("::add-mask::")}
    assert hidden == {line for line in key.splitlines() if line}
    assert "Error loading key" not in done.stderr


def test_job_invalid_key_fails_before_the_task() -> None:
    done = run_job("config.check", DEPLOY_SSH_KEY="no key at all")

    assert (done.returncode, "ERROR    " in done.stdout) == (1, False)


#: A parent can start a job with ignored signals, as `nohup` and a shell's `&` do.
IGNORE_SIGNALS = ("sh", "-c", 'trap "" INT HUP TERM; exec "$@"', "sh")
DRIVER = """
import pathlib, sys
from scripts import job
job.INVOKE, job.ROOT = ('sh', '-c', sys.argv[1], 'sh'), pathlib.Path(sys.argv[2])
sys.exit(job.main(['%s']))
"""


def started(text: str, task: str, root: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
    """Start a job whose task is this shell text, in a clone at `root`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "JOB_", "DEPLOY_"))}
    command = [*IGNORE_SIGNALS, sys.executable, "-c", DRIVER % task, text, str(root)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=clean | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def new_key(directory: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "key"], check=True, timeout=30)
    return (directory / "key").read_text()


def test_job_key_may_be_one_line_of_base64(tmp_path: Path) -> None:
    # GitLab masks only variables of one line.
    key = base64.b64encode(new_key(tmp_path).encode()).decode()

    output, _ = started("ssh-add -l", "status", DEPLOY_SSH_KEY=key).communicate(timeout=60)

    assert "(ED25519)" in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("agent", [False, True])
def test_job_cancelled_lets_its_task_undo(number: signal.Signals, agent: bool, tmp_path: Path) -> None:
    text = "trap 'echo undone; exit 130' TERM INT HUP; echo begun; while :; do sleep 0.05; done"
    environment = {"DEPLOY_SSH_KEY": new_key(tmp_path)} if agent else {}

    with started(text, "deploy", ROOT, **environment) as job_process:
        assert job_process.stdout is not None
        try:
            assert job_process.stdout.readline() == "begun\n"
            job_process.send_signal(number)
            output, _ = job_process.communicate(timeout=30)
        finally:
            if job_process.poll() is None:
                os.killpg(job_process.pid, signal.SIGKILL)

    assert (job_process.returncode, "undone" in output) == (130, True)


REPORT_NAME = "staging-20261124T083000Z-0a1b2c.json"
STAGES = [
    {"stage": "build", "result": "done", "seconds": 4.0, "exit_code": 0, "detail": "r/b:v2"},
    {"stage": "test", "result": "failed", "seconds": 1.5, "exit_code": 1, "detail": "unit: nothing was pushed"},
]
REPORT = {"environment": "staging", "tag": "v2", "outcome": "failed", "deploy": [], "stages": STAGES}


def summary_of_full(root: Path, text: str) -> str:
    """Return the summary of a job whose `inv full` runs this shell text and fails."""
    page = root / "summary.md"
    with started(f"{text}; exit 1", "full", root, JOB_SUMMARY=str(page)) as process:
        process.communicate(timeout=60)
    return page.read_text()


def report(root: Path, content: str) -> Path:
    path = root / "reports" / REPORT_NAME
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return path


def test_job_of_full_summarizes_the_stages_of_its_report(tmp_path: Path) -> None:
    path, page = report(tmp_path, json.dumps(REPORT)), tmp_path / "summary.md"
    text = f"echo 'report: {path}'; exit 1"

    with started(text, "full", tmp_path, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(page)) as process:
        output, _ = process.communicate(timeout=60)

    assert "::error title=inv full failed::test failed: unit: nothing was pushed" in output
    assert page.read_text().startswith("### full v2 on staging: test failed: unit: nothing was pushed\n")
    assert "| test | failed | 1.5 s | unit: nothing was pushed |" in page.read_text()


WITHOUT = "### inv full: failed, exit code 1\n\n"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"stages": [1]}',
        "[" * 200_000,
        json.dumps(REPORT | {"stages": [STAGES[0] | {"seconds": "x"}]}),
        json.dumps(REPORT | {"stages": [STAGES[0] | {"seconds": float("nan")}]}),
        json.dumps(REPORT | {"stages": [STAGES[0] | {"seconds": 10**400}]}),
        json.dumps(REPORT | {"stages": [STAGES[0] | {"detail": ["x"]}]}),
        json.dumps(REPORT | {"stages": {"a": 1}}),
        json.dumps(REPORT | {"deploy": [{"host": 1, "cause": None}]}),
        json.dumps(REPORT | {"tag": 2}),
        json.dumps(REPORT | {"more": "x" * (1 << 20)}),
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
    ids=lambda content: content[:40],
)
def test_job_of_full_with_an_invalid_report_summarizes_the_exit_code(content: str, tmp_path: Path) -> None:
    path = report(tmp_path, content)

    assert summary_of_full(tmp_path, f"echo 'report: {path}'") == WITHOUT


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "folder"])
def test_job_of_full_ignores_a_report_that_is_not_a_regular_file(kind: str, tmp_path: Path) -> None:
    path = report(tmp_path, "")
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        (tmp_path / "other").write_text(json.dumps(REPORT))
        path.symlink_to("/dev/zero" if kind == "device" else tmp_path / "other")

    assert summary_of_full(tmp_path, f"echo 'report: {path}'") == WITHOUT


@pytest.mark.parametrize(
    "place", ["{root}/{name}", "{root}/reports/../{name}", "{root}/reports/other.json", "/dev/zero"]
)
def test_job_of_full_ignores_reports_in_other_paths(place: str, tmp_path: Path) -> None:
    path = place.format(root=tmp_path, name=REPORT_NAME)
    (tmp_path / "reports").mkdir()
    if path != "/dev/zero":
        Path(path).write_text(json.dumps(REPORT))

    assert summary_of_full(tmp_path, f"echo 'report: {path}'") == WITHOUT


def test_job_of_full_reads_only_the_report_named_in_its_last_line(tmp_path: Path) -> None:
    path = report(tmp_path, json.dumps(REPORT))

    assert summary_of_full(tmp_path, f"echo 'report: {path}'; echo 'unit | the end'") == WITHOUT


def test_markdown_escapes_texts_in_its_table() -> None:
    text = job.markdown(SUMMARY)

    assert text.startswith("### deploy on production: web1 upgraded.\n")
    assert "| web2 | undone | 1.0 s | gate \\| \\<b\\>failed\\</b\\> for it |" in text
    assert text.endswith("To go back: `inv rollback --env production`\n")


def test_annotation_escapes_texts_into_one_line() -> None:
    assert job.annotation("a: b, c", "100 %\nnext::error::x") == "::error title=a%3A b%2C c::100 %25%0Anext::error::x"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ({"type": "plan", "host": "web1", "services": []}, ["plan  web1: nothing to do"]),
        (
            {"type": "plan", "host": "web1", "services": [{"service": "backend", "change": "upgrade"}]},
            ["plan  web1: backend upgrade"],
        ),
        (
            {
                "type": "event",
                "phase": "failed",
                "host": "web1",
                "step": "pull",
                "title": "",
                "seconds": 1.25,
                "detail": "a\nb",
            },
            ["web1 pull failed 1.2s", "    | a", "    | b"],
        ),
        ({"type": "event", "phase": "progress"}, []),
        (SUMMARY, ["deploy r1 on production: web1 upgraded.", "To go back: inv rollback --env production"]),
        ({"type": "other"}, []),
    ],
)
def test_lines_of_json_output(message: dict[str, object], shown: list[str]) -> None:
    assert list(job.lines(message)) == shown


@pytest.mark.parametrize("tag", ["$(touch made)", "`touch made`", "'; touch made; '", '"; touch made; "'])
def test_make_does_not_evaluate_a_tag(tag: str, tmp_path: Path) -> None:
    # The make that runs these tests exports its variables, such as ARGS. Source: GNU make, MAKEFLAGS.
    clean = {key: value for key, value in os.environ.items() if key not in {"MAKEFLAGS", "MFLAGS", "ARGS", "TAG"}}
    for given in ({"TAG": tag}, {}):
        words = [] if given else [f"TAG={tag.replace('$', '$$')}"]
        command = [
            "make",
            "-C",
            str(ROOT),
            "-o",
            "setup",
            "deploy-nowhere",
            f"BIN={Path(sys.executable).parent}",
            *words,
        ]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**clean, "CI": "", **given},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Unknown environment 'nowhere'" in done.stderr, done
        assert not (ROOT / "made").exists()
