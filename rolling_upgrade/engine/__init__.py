"""What every feature stands on: shell text, Podman, Nginx, probes, locks, stages, plans, the executor, the rollout.

Standard library only (Python 3.10+): parts of it also run on the hosts, as one zipapp.
"""
