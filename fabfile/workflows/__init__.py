"""What an operator does, one file per thing, each reading as its story: look, plan, confirm, act, report."""
