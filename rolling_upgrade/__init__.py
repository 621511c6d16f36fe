"""Zero-downtime rolling upgrades of containerised web applications over SSH.

    errors     the error tree and the exit codes
    engine     the core that every feature builds on; standard library, and Jinja2 for the site
    config     hosts.yaml, services.yaml and env files, checked and joined into one Environment
    rendering  Jinja2 templates, and the programs for hosts
    ssh        connections over Fabric and Paramiko
    console    everything that prints and asks
    features   one package per operator task; `operation` and `apply` are shared
    tasks      the collection of tasks that `inv` and `fab` show
    cli        the console script `rolling-upgrade`

Imports run one way: errors <- engine <- config <- rendering <- ssh, console <- features <- tasks <- cli, fabfile.
tests/test_layers.py enforces it.
"""

__version__ = "0.2.0"
