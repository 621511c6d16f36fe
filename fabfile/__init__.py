"""Zero-downtime rolling upgrades over SSH: the tasks for `inv` and `fab`, and the map of the layers behind them.

    errors    how things end badly, with exit codes
    model     the words as frozen dataclasses
    sealing   files encrypted at rest: age, ansible-vault, gpg
    config    hosts.yaml, services.yaml and env files -> validated model
    commands  remote shell text, pure
    render    templates -> text, pure
    plans     observed host + wanted release -> steps, pure
    remote    connections, observation, execution, rollout
    report    everything that prints
    notify    messages to people: Slack, mail, webhook
    workflows one file per thing an operator does
    tasks     signatures and help

Imports run downwards only: errors <- model <- sealing <- config <- commands <- render <- plans <- remote <- workflows
<- tasks; report knows errors, model, config and plans.step, notify errors and model. tests/test_layers.py enforces it.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`namespace`, the collection of tasks, made at first use: the lower layers must not import invoke."""
    if name != "namespace":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fabfile.tasks.namespace import namespace

    return namespace
