"""The report for programs: one JSON object per line, the summary last. It owns the shape of those objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from fabfile.model import Event, Image, Summary
from fabfile.plans.step import Plan, ServicePlan, Step
from fabfile.report.output import Output


class JsonReporter:
    """Writes objects whose `type` is `plan`, `event` or `summary`; safe to call from many threads."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def plan(self, plans: Sequence[Plan], *, scripts: bool = False, batches: Sequence[Sequence[str]] = ()) -> None:
        """Write one object per host, with every command when `scripts`, and the number of its batch."""
        numbers = {host: number for number, hosts in enumerate(batches, 1) for host in hosts}
        for plan in plans:
            self._write({**plan_object(plan, scripts=scripts), "batch": numbers.get(plan.host)})

    def event(self, event: Event) -> None:
        """Write one event."""
        self._write(event_object(event))

    def summary(self, summary: Summary) -> None:
        """Write how the run ended."""
        self._write(summary_object(summary))

    def close(self) -> None:
        """Nothing to end: every line was handed over when it was written."""

    def __enter__(self) -> JsonReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, value: Mapping[str, Any]) -> None:
        write_json(value, self._output)


def write_json(value: Mapping[str, Any], output: Output) -> None:
    """Write one object on one line, every text in it masked and clean."""
    # ASCII only: a reader may have any encoding.
    output.write(json.dumps(masked(value, output)) + "\n")
    output.flush()


def masked(value: Any, output: Output) -> Any:
    """The value with every text in it masked and clean."""
    # Masked before it is encoded: a secret with a quote in it looks different afterwards.
    if isinstance(value, str):
        return output.safe(value)
    if isinstance(value, Mapping):
        return {output.safe(key): masked(item, output) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item, output) for item in value]
    return value


def plan_object(plan: Plan, *, scripts: bool) -> dict[str, Any]:
    """A plan as a program reads it."""
    stages = {"lock": plan.lock, "prepare": plan.prepare, "steps": plan.steps, "finish": plan.finish}
    return {
        "type": "plan",
        "host": plan.host,
        "action": plan.action,
        "release": plan.release,
        "empty": plan.empty,
        "services": [_service_object(service) for service in plan.services],
        "notes": list(plan.notes),
        **{name: [_step_object(step, scripts=scripts) for step in steps] for name, steps in stages.items()},
    }


def event_object(event: Event) -> dict[str, Any]:
    """An event as a program reads it."""
    return {
        "type": "event",
        "at": round(event.at, 3),
        "phase": event.phase.value,
        "host": event.host,
        "step": event.step,
        "title": event.title,
        "seconds": round(event.seconds, 3),
        "detail": event.detail,
        **({"sent": event.sent, "total": event.total} if event.sent or event.total else {}),
    }


def summary_object(summary: Summary) -> dict[str, Any]:
    """The end of a run as a program reads it."""
    return {
        "type": "summary",
        "action": summary.action,
        "environment": summary.environment,
        "release": summary.release,
        "exit_code": int(summary.exit_code),
        "seconds": round(summary.seconds, 3),
        "hosts": [
            {
                "host": host.host,
                "result": host.result.value,
                "seconds": round(host.seconds, 3),
                "images": dict(host.images),
                "cause": host.cause,
            }
            for host in summary.hosts
        ],
        "message": summary.message,
        "warnings": list(summary.warnings),
        "undo_command": summary.undo_command,
    }


def _service_object(service: ServicePlan) -> dict[str, Any]:
    return {
        "service": service.service,
        "change": service.change.value,
        "current": _image_object(service.current),
        "current_color": service.current_color.value if service.current_color else None,
        "wanted": _image_object(service.wanted),
        "color": service.color.value,
        "env_changes": list(service.env_changes),
        "reasons": list(service.reasons),
    }


def _image_object(image: Image | None) -> dict[str, str] | None:
    if image is None:
        return None
    return {"repository": image.repository, "tag": image.tag, "digest": image.digest}


def _step_object(step: Step, *, scripts: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": step.id, "title": step.title}
    if scripts:
        undo = step.undo.masked if step.undo else None
        shown |= {"timeout_seconds": step.timeout_seconds, "script": step.script.masked, "undo": undo}
    return shown
