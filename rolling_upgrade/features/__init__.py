"""The operator tasks, one package each: tasks, workflow, plan, shell, view."""
