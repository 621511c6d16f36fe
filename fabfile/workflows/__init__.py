"""What an operator does, one file per thing, each reading as its story: configuration, look, plan, confirm, act, report."""
