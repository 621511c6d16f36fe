"""The watchdog: it observes one application on its host, and recovers failing services without an operator.

`inv monitor.install` packs it into one file that runs under the host's python3 (3.10+, standard library). It runs
commands and acquires the lock as every other run does.

    loop         observe, decide, act, wait
    policy       the rules: classify failures, choose a recovery
    recovery     one recovery, as a run of its own, and the plan of a restart
    alerts       the failures that become alerts, deduplicated
    outbox       stored messages, which a second process sends
    metrics      the file for node-exporter; request_log counts its requests
    state_store  settings, state and log on the host
    shell, workflow   the commands of the workstation
"""
