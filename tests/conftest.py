"""What every test shares: the Hypothesis profiles.

The gate is the same every time it runs; `HYPOTHESIS_PROFILE=deep` searches further, and anew.
"""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "gate",
    derandomize=True,
    deadline=None,
    print_blob=True,
    # A busy machine is no fault of a test.
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "deep",
    max_examples=2_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))

# What a shell starts in the background ignores Ctrl-C, and so would the commands that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What fails fast comes first; of what takes minutes, the longest: two run at a time."""

    def minutes(item: pytest.Item) -> int:
        mark = item.get_closest_marker("cluster")
        return 0 if mark is None else int(mark.kwargs["minutes"])

    items.sort(key=lambda item: (minutes(item) > 0, -minutes(item)))
