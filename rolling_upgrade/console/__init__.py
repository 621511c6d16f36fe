"""Output and prompts: reporters of a run, live drawing, tables, plans, confirmations.

Every text is written with secrets masked and control characters removed, because hosts are not trusted.
"""
