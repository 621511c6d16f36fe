"""Telling people: a notice becomes words in their language, and goes to Slack, by mail, and to any JSON webhook.

It decides nothing about runs or checks, prints nothing, and never fails or delays beyond its bound whoever calls it.
Standard library only (Python 3.10+): the on-host service packs it too, and watches without what sending needs.
"""
