"""What every test shares: Hypothesis settings under which a run can be repeated."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# The same examples on every machine and in every run: a red run is red again when it is looked at.
# The examples that are printed on a failure can be pasted into the test as a regression.
settings.register_profile(
    "default",
    derandomize=True,
    deadline=None,
    print_blob=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)

# New examples each time, and many of them: for the long searches, not for a verdict on a commit.
settings.register_profile(
    "explore",
    settings.get_profile("default"),
    derandomize=False,
    max_examples=2_000,
)

settings.load_profile(os.environ.get("KVSTORE_HYPOTHESIS_PROFILE", "default"))
