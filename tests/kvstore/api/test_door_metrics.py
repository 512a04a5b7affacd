"""What the front door counts is what /metrics shows of it."""

from kvstore.api.limits import Counters
from kvstore.errors import Code
from kvstore.metrics_door import DoorCollector


def test_http2_and_grpc_are_shown():
    counters = Counters()
    http2 = counters.http2
    names = [name for name in http2.__slots__ if name not in ("answers", "connections_open")]
    for number, name in enumerate(names, start=1):
        setattr(http2, name, number)
    http2.connections_open = 50
    http2.answers[Code.OK] = 7
    http2.answers[Code.NOT_FOUND] = 2
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in DoorCollector(counters).collect()
        for sample in metric.samples
    }
    for number, name in enumerate(names, start=1):
        assert samples[f"kvstore_http2_{name}_total",] == number
    assert samples["kvstore_http2_connections_open",] == 50
    answers = {key[1]: value for key, value in samples.items() if "grpc_answers" in key[0]}
    assert answers == {"0": 7, "5": 2}
