"""What it ran on: a figure without its machine says nothing."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path


def measured_on(versions: Iterable[str]) -> str:
    """Today (ISO 8601, UTC) and what was measured: ``2026-12-01, kvstore 0.1.0 and etcd 3.4``."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"{today}, {' and '.join(versions)}"


def machine() -> list[str]:
    """What it ran on."""
    model = platform.processor() or platform.machine()
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = _read("/proc/meminfo").partition("MemTotal:")[2].split("kB")[0].strip()
    answer = subprocess.run(
        ["stat", "-f", "-c", "%T", "."], capture_output=True, text=True, check=False
    )
    return [
        f"- {os.cpu_count()} × {model}, {int(memory or 0) / 1e6:.0f} GB of memory",
        f"- {platform.system()} {platform.release()}, file system {answer.stdout.strip()}",
        f"- Python {platform.python_version()}",
    ]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
