"""How long something stays broken."""

from __future__ import annotations

import random
import threading


def hold(rng: random.Random, least_seconds: float, most_seconds: float) -> None:
    """Leave it as it is for a while."""
    threading.Event().wait(rng.uniform(least_seconds, most_seconds))
