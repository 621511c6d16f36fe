"""Everything that prints: plans, events, summaries, status. It decides nothing and contacts nothing.

Every text is masked and freed of control characters before it is written: log lines come from hosts.
"""

from fabfile.model.masking import clean, mask, safe
from fabfile.report.output import tell
from fabfile.report.reporter import Reporter, choose
from fabfile.report.status import problems, render_status

__all__ = ["Reporter", "choose", "clean", "mask", "problems", "render_status", "safe", "tell"]
