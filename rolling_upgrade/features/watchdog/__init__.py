"""The watchdog: it watches one application on its own host, and recovers it while nobody is there.

`inv monitor.install` packs it into one file that runs under the host's python3 (3.10+, standard library). It runs
commands and takes the lock as every other run does.

    loop         observe, decide, act, wait
    policy       the rules: which failures, which recovery
    recovery     one recovery, as a run of its own
    alerts       which failures become alerts
    outbox       messages on their way to channels
    metrics      the file for node-exporter: exposition has its samples, request_log counts requests
    state_store  settings, state and log on the host
    shell, view, workflow, plan   the commands of the workstation, and the plan of a restart
"""
