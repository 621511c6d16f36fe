"""What an operator does, one folder per thing: tasks, workflow, plan, shell text, view."""
