"""The program that watches one application on its own host, and recovers it while nobody looks.

It is packed with the layers below as one file and runs under the host's python3 alone: standard library, Python 3.10+.
The rules are `plans.watch`, the commands are those of every other run, and it takes the same lock.

    keeping     its files: settings, memory, what runs
    seeing      from one look to what it means for recovery
    recovering  one recovery as a run of its own
    alerting    what of a look people are told
    telling     which alerts are told now
    outbox      messages on their way
    watching    the loop
"""
