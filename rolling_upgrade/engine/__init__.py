"""The core of every feature: shell scripts, Podman, Nginx, probes, locks, plans, executor and rollout.

Standard library only (Python 3.10+; the site also Jinja2): parts of it also run on the hosts, as zipapps.
"""
