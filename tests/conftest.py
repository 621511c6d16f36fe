"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# Tests run beside others on small machines, so time says nothing; what an earlier run found is not kept.
settings.register_profile("project", deadline=None, database=None, print_blob=True)
settings.load_profile("project")
