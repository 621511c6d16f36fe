"""What the watchdog does about what it saw: a function of its memory, one look and the time. Pure; it acts on nothing.

The order of things: count, wait, restart the container, then start the release anew or roll back a fresh one, then give
up. What no recovery can mend (a full disk, no memory, a dead Nginx) is never answered with one.
"""

from __future__ import annotations

from dataclasses import replace

from fabfile.model.watch import Act, Ailment, Decision, Look, Memory, Pulse, Trouble, WatchRules

#: How long a host that is short of room is left alone after what retention allows was deleted, seconds.
PRUNE_AGAIN_SECONDS = 3600.0


def decide(memory: Memory, look: Look, rules: WatchRules, now: float) -> tuple[Memory, Decision]:
    """The new memory and the one thing to do now. `now` is seconds on a clock that never jumps."""
    if look.held:
        # A run changes this host: what is seen meanwhile says nothing, neither good nor bad.
        return memory, Decision(Act.NOTHING, reason=f"the lock is held: {look.held}")
    memory = _looked(memory, look, rules, now)
    if look.starved and rules.enabled and _may_prune(memory, now):
        return replace(memory, pruned_at=now), Decision(Act.PRUNE, reason=look.starved)
    ill = [trouble for trouble in look.troubles if _count(memory.pulse(trouble.service)) >= rules.failures]
    if look.starved:
        # A restart brings neither disk nor memory: only what does not run at all is started.
        ill = [trouble for trouble in ill if trouble.ailment is Ailment.STOPPED]
    if not ill:
        worst = max((_count(memory.pulse(trouble.service)) for trouble in look.troubles), default=0)
        waits = f"{look.troubles[0].reason} ({worst} of {rules.failures})" if look.troubles else look.starved
        return memory, Decision(Act.WAIT if waits else Act.NOTHING, reason=waits)
    return _recover(memory, ill[0], look, rules)


def recovered(memory: Memory, service: str, now: float) -> Memory:
    """The memory after a recovery, whatever came of it: it counts against the limit, and bad looks from 0 again."""
    pulse = memory.pulse(service)
    return replace(
        _with(memory, replace(pulse, bad=0, good=0, crashes=0, tried=pulse.tried + 1)),
        recoveries=(*memory.recoveries, now),
    )


def _looked(memory: Memory, look: Look, rules: WatchRules, now: float) -> Memory:
    """Count this look; another release, or enough good looks, let the watchdog begin again after it gave up."""
    if memory.release != look.release:
        memory = Memory(release=look.release, recoveries=memory.recoveries, pruned_at=memory.pruned_at)
    ill = {trouble.service: trouble for trouble in look.troubles}
    pulses = tuple(_counted(memory.pulse(name), ill.get(name), rules, now) for name in look.services)
    well = all(pulse.good >= rules.failures for pulse in pulses)
    return replace(
        memory,
        pulses=pulses,
        recoveries=tuple(at for at in memory.recoveries if 0 <= now - at < rules.window_seconds),
        given_up=memory.given_up and not well,
    )


def _counted(pulse: Pulse, trouble: Trouble | None, rules: WatchRules, now: float) -> Pulse:
    """One more look. Crashes and what was tried are forgotten after a whole run of good looks: flapping is one trouble.

    Podman starts a crashed container itself, so that looks between two crashes are good ones: crashes have a count of
    their own.
    """
    if trouble is not None and pulse.since is None:
        pulse = replace(pulse, since=now)
    if trouble is not None and trouble.ailment is Ailment.CRASHING:
        return replace(pulse, bad=0, good=0, crashes=pulse.crashes + trouble.crashes)
    if trouble is not None:
        return replace(pulse, bad=pulse.bad + trouble.misses, good=0)
    good = pulse.good + 1
    return Pulse(pulse.service, good=good) if good >= rules.failures else replace(pulse, bad=0, good=good)


def _count(pulse: Pulse) -> int:
    return max(pulse.bad, pulse.crashes)


def _with(memory: Memory, pulse: Pulse) -> Memory:
    others = tuple(one for one in memory.pulses if one.service != pulse.service)
    return replace(memory, pulses=(*others, pulse))


def _may_prune(memory: Memory, now: float) -> bool:
    return memory.pruned_at is None or now - memory.pruned_at >= PRUNE_AGAIN_SECONDS


def _recover(memory: Memory, trouble: Trouble, look: Look, rules: WatchRules) -> tuple[Memory, Decision]:
    if look.hopeless or not rules.enabled or memory.given_up:
        why = look.hopeless or ("recovery was given up" if memory.given_up else "recovery is switched off")
        return memory, Decision(Act.WAIT, trouble.service, f"{trouble.reason}; {why}")
    if len(memory.recoveries) >= rules.limit:
        reason = f"{trouble.reason}; {len(memory.recoveries)} recoveries within {rules.window_seconds:g} s did not help"
        return replace(memory, given_up=True), Decision(Act.GIVE_UP, trouble.service, reason)
    return memory, Decision(_remedy(memory.pulse(trouble.service), trouble, look), trouble.service, trouble.reason)


def _remedy(pulse: Pulse, trouble: Trouble, look: Look) -> Act:
    # What crashes was started again by Podman already, to no avail.
    back = look.fresh and look.earlier
    # A young release that answers, and says that it is ill, would say so after a restart too.
    mends = {Ailment.STOPPED, Ailment.SILENT} if back else {Ailment.STOPPED, Ailment.SILENT, Ailment.ILL}
    if look.starved or (trouble.ailment in mends and pulse.tried == 0):
        return Act.RESTART
    return Act.ROLL_BACK if back else Act.REDEPLOY
