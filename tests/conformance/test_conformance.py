"""etcd and this store, asked the same: a share of what ``make conformance`` does for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.answers import Answer
from tests.conformance.calls import Call
from tests.conformance.generate import sequence
from tests.conformance.grpc_servers import GrpcServer
from tests.conformance.search import Search
from tests.conformance.servers import ETCD, Server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(ETCD is None, reason="etcd is not installed (.ci/packages.txt names it)"),
]

SEEDS = range(1, 101)
GRPC_SEEDS = range(101, 161)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("make", "seeds"), [(Server, SEEDS), (GrpcServer, GRPC_SEEDS)])
def test_etcd_and_kvstore_answer_alike(tmp_path: Path, make: type[Server], seeds: range) -> None:
    with Search(tmp_path, make=make) as search:
        for seed in seeds:
            trouble = search.run(seed)
            assert trouble is None, trouble
    assert search.calls >= len(seeds) * len(sequence(1))


@pytest.mark.timeout(400)
def test_a_planted_difference_is_found_and_cut_down_to_the_calls_that_show_it(
    tmp_path: Path,
) -> None:
    """Our node forgets to count in some deletes: only a put and a delete of it can show that."""

    def one_too_many(call: Call, answer: Answer) -> Answer:
        if call.path.endswith("/kv/deleterange") and answer.body.get("prev_kvs"):
            answer.body["deleted"] = str(int(answer.body["deleted"]) + 1)
        return answer

    with Search(tmp_path, one_too_many) as search:
        trouble = next(filter(None, map(search.run, SEEDS)))
    lines = [line for line in trouble.splitlines() if line.startswith("curl")]
    assert len(lines) == 2, trouble
    assert "/kv/put" in lines[0] or "/kv/txn" in lines[0]
    assert "/kv/deleterange" in lines[1]
    assert "prev" in lines[1]
    assert '\n- "deleted"' in trouble
    assert '\n+ "deleted"' in trouble
    assert trouble.startswith("seed ")
