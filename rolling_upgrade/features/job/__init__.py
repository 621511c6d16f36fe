"""The jobs: list them, and run one now."""
