"""Output and prompts: reporters of a run, live drawing, tables, plans, confirmations.

Output masks secrets and removes control characters from every text, because texts from hosts are not trusted.
"""
