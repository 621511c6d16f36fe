"""Telling people: a notice becomes words in their language, and goes to Slack, by mail, and to any JSON webhook.

It decides nothing about runs or checks, prints nothing, and never fails or delays beyond its bound whoever calls it.
Standard library only (Python 3.10+): the on-host service packs it too.
"""

from fabfile.notify.delivery import Delivery
from fabfile.notify.send import WITHIN_SECONDS, Sending, begin, send

__all__ = ["WITHIN_SECONDS", "Delivery", "Sending", "begin", "send"]
