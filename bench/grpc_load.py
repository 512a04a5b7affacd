"""How much does a system answer over gRPC? One run of h2load: one call, connections and streams.

h2load sends one body again and again, so all calls concern one key. It sees HTTP's status alone,
and gRPC says 200 to whatever it refuses: what was written is counted in the store afterwards, and
what was read must have had so many bytes.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.figures import BenchError
from bench.load import START_SECONDS_MAX, Run
from bench.systems import VALUE
from kvstore.api.grpc.encode import encode
from kvstore.client import Client
from kvstore.types import PutRequest, RangeRequest, Record

KEY: Final = b"key-00001"
_CALLS: Final[dict[str, tuple[str, Record]]] = {
    "put": ("/etcdserverpb.KV/Put", PutRequest(key=KEY, value=VALUE)),
    "get": ("/etcdserverpb.KV/Range", RangeRequest(key=KEY)),
}
_FRAME: Final = struct.Struct(">BI")
_COUNTS: Final = re.compile(r"requests: .* (\d+) done, (\d+) succeeded")
_TOOK: Final = re.compile(r"finished in ([\d.]+)(ms|s)")
_DATA: Final = re.compile(r"traffic: .*\((\d+)\) data")


def h2load() -> str:
    """The path of h2load.

    Raises:
        BenchError: It is not installed.
    """
    program = shutil.which("h2load")
    if program is None:
        raise BenchError("h2load is not installed: apt-get install nghttp2-client")
    return program


def run(url: str, call: str, connections: int, streams: int, seconds: int) -> Run:
    """Put one load on one node.

    Raises:
        BenchError: h2load did not do its work, or what it counted as done was not.
    """
    path, request = _CALLS[call]
    message = encode(request)
    before = _version(url)
    with tempfile.TemporaryDirectory(prefix="h2load") as directory:
        body, log = Path(directory, "body"), Path(directory, "log")
        body.write_bytes(_FRAME.pack(0, len(message)) + message)
        options = [f"-c{connections}", f"-m{streams}", "-t1", f"-D{seconds}", f"-d{body}"]
        headers = ["-Hcontent-type: application/grpc", "-Hte: trailers"]
        answer = subprocess.run(
            [h2load(), *options, *headers, f"--log-file={log}", url + path],
            capture_output=True,
            text=True,
            timeout=seconds + START_SECONDS_MAX,
            check=False,
        )
        times = [int(line.split("\t")[2]) for line in log.read_text().splitlines()]
    found = parse(answer.stdout, times)
    if found is None:
        raise BenchError(f"h2load failed: {answer.stderr.strip() or answer.stdout.strip()}")
    if call == "put" and _version(url) - before < found.succeeded:
        raise BenchError(f"{url} said that it had put {found.succeeded} times, and has not")
    if call == "get" and found.bytes < found.succeeded * len(VALUE):
        raise BenchError(f"{url} answered {found.succeeded} times with less than the value")
    return found


def parse(output: str, times_us: Sequence[int]) -> Run | None:
    """What h2load printed and logged as a run; None if it did nothing.

    Args:
        output: What it printed.
        times_us: How long each answer took.
    """
    found, took, data = (pattern.search(output) for pattern in (_COUNTS, _TOOK, _DATA))
    if found is None or took is None or data is None or not times_us:
        return None
    times = sorted(times_us)
    done, succeeded = int(found[1]), int(found[2])
    return Run(
        requests=done,
        duration_us=round(float(took[1]) * (1e6 if took[2] == "s" else 1e3)),
        p50_us=times[len(times) // 2],
        p99_us=times[len(times) * 99 // 100],
        refused=done - succeeded,
        broken=0,
        bytes=int(data[1]),
    )


def _version(url: str) -> int:
    """How often the key has been put."""
    with Client([url]) as client:
        found = client.get(KEY).kvs
    return found[0].version if found else 0
