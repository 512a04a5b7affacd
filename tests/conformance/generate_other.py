"""Calls of the Lease, Maintenance, Cluster, Lock and Election services, and calls that are none."""

from __future__ import annotations

from typing import Any, Final

from tests.conformance.calls import KEEP_ALIVE, Call, LeaderOf
from tests.conformance.material import UNKNOWN_LEASE, Material


def lease_grant(material: Material) -> Call:
    body: dict[str, Any] = {"TTL": material.rng.choice((0, -5, 3, 100, "200", 9_000_000_000))}
    if material.chance(0.02):
        body["TTL"] = 9_000_000_001
    if material.chance(0.85) or body["TTL"] == 9_000_000_001:
        body["ID"] = material.rng.choice(material.leases)
    else:
        material.chosen_leases += 1
    return Call(material.path("/lease/grant"), body, user="root" if material.auth else "")


def lease_revoke(material: Material) -> Call:
    path = material.rng.choice(("/lease/revoke", "/lease/revoke", "/kv/lease/revoke"))
    user = "root" if material.auth else ""
    return Call(material.path(path), {"ID": material.lease()}, user=user)


def lease_keep_alive(material: Material) -> Call:
    requests = [{"ID": material.lease()} for _ in range(material.rng.randint(0, 3))]
    return Call(KEEP_ALIVE, requests, user=material.user())


def lease_time_to_live(material: Material) -> Call:
    body = {"ID": material.lease()} | material.flags(0.7, "keys")
    path = material.rng.choice(("/lease/timetolive", "/kv/lease/timetolive"))
    return Call(material.path(path), body, user=material.user())


def lease_leases(material: Material) -> Call:
    path = material.rng.choice(("/lease/leases", "/kv/lease/leases"))
    return Call(material.path(path), user=material.user())


def maintenance(material: Material) -> Call:
    path, body = material.rng.choice(
        (
            ("/maintenance/status", {}),
            ("/maintenance/alarm", {}),
            ("/maintenance/alarm", {"action": "GET", "alarm": material.enum(_ALARMS)}),
            ("/maintenance/alarm", {"action": 2, "memberID": "77", "alarm": "NOSPACE"}),
            ("/maintenance/hash", {}),
            ("/maintenance/defragment", {}),
            ("/maintenance/transfer-leadership", {"targetID": "77"}),
        )
    )
    changes = body.get("action") == 2 or path.endswith("/transfer-leadership")
    # 3.4 lets anybody change things.
    user = "root" if material.auth and changes else material.user()
    return Call(material.path(path), body, user=user)


_ALARMS: Final = ("NONE", "NOSPACE", "CORRUPT")


def cluster(material: Material) -> Call:
    path, body = material.rng.choice(
        (
            ("/cluster/member/list", {}),
            ("/cluster/member/list", {"linearizable": True}),
            ("/cluster/member/add", {"peerURLs": []}),
            ("/cluster/member/add", {"peerURLs": ["nonsense"]}),
            ("/cluster/member/remove", {"ID": "77"}),
            ("/cluster/member/promote", {"ID": "77"}),
            ("/cluster/member/update", {"ID": "77", "peerURLs": ["http://127.0.0.1:1"]}),
        )
    )
    return Call(material.path(path), body, user=material.user())


def concurrency(material: Material) -> Call:
    """Locks and elections whose name belongs to one lease only: nobody ever has to wait."""
    rng = material.rng
    lease = rng.choice([*material.leases, UNKNOWN_LEASE])
    name = b"l%d" % lease
    key = name + b"/%x" % (lease % (1 << 64))
    leader = rng.choice((LeaderOf(name), {"name": name, "key": key, "rev": "1", "lease": lease}))
    path, body = rng.choice(
        (
            ("/lock/lock", {"name": name, "lease": lease}),
            ("/lock/lock", {"name": name, "lease": lease}),
            ("/lock/unlock", {"key": key}),
            ("/election/campaign", {"name": name, "lease": lease, "value": material.value()}),
            ("/election/proclaim", {"leader": leader, "value": material.value()}),
            ("/election/leader", {"name": name}),
            ("/election/resign", {"leader": leader}),
            ("/election/resign", {}),
        )
    )
    return Call(material.path(path), body)


_MALFORMED: Final[tuple[tuple[str, bytes], ...]] = (
    ("/kv/range", b"{"),
    ("/kv/range", b'{"key":"YQ=="'),
    ("/kv/range", b'{"key":7}'),
    ("/kv/range", b'{"key":"YQ==","limit":"x"}'),
    ("/kv/range", b'{"key":"YQ==","limit":1.5}'),
    ("/kv/range", b'{"key":"YQ==","limit":9223372036854775808}'),
    ("/kv/range", b'{"key":"YQ==","serializable":"true"}'),
    ("/kv/range", b'{"key":"Y*=="}'),
    ("/kv/range", b'{"key":"YQ==","sort_order":1.5}'),
    ("/kv/range", b"[]"),
    ("/kv/range", b"7"),
    ("/kv/range", b'"a"'),
    ("/kv/range", b""),
    ("/kv/range", b"{}"),
    ("/kv/range", b'{"key":"YQ=="} tail'),
    ("/kv/range", b'{"key":"YQ==","unknown":{"a":[1]}}'),
    ("/kv/range", b'{"key":"YQ==","range_end":null,"limit":null}'),
    ("/kv/range", b'{"key":"YQ==","limit":"2","revision":0}'),
    ("/kv/put", b"{"),
    ("/kv/put", b""),
    ("/kv/put", b"nonsense"),
    ("/kv/put", b'{"key":{}}'),
    ("/kv/put", b'{"key":"YQ==","value":"YQ==","lease":"x"}'),
    ("/kv/deleterange", b"{}"),
    ("/kv/deleterange", b'{"key":true}'),
    ("/kv/txn", b""),
    ("/kv/txn", b"{}"),
    ("/kv/txn", b'{"success":{}}'),
    ("/kv/txn", b'{"success":[{}]}'),
    ("/kv/txn", b'{"success":[7]}'),
    ("/kv/txn", b'{"compare":[{}]}'),
    ("/kv/txn", b'{"compare":[{"key":"YQ==","result":"EQUAL"}]}'),
    ("/kv/txn", b'{"compare":[{"key":"YQ==","target":9}]}'),
    ("/kv/txn", b'{"compare":[{"key":"YQ==","result":9}]}'),
    ("/lease/grant", b'{"ttl":"5"}]'),
    ("/lease/grant", b'{"TTL":"a"}'),
    ("/lease/revoke", b"{}"),
    ("/lease/timetolive", b"{}"),
    ("/lease/keepalive", b"{}{"),
    ("/lease/keepalive", b""),
    ("/maintenance/alarm", b'{"action":"GET","alarm":5}'),
    ("/cluster/member/remove", b"{}"),
    ("/cluster/member/promote", b"{}"),
    ("/maintenance/transfer-leadership", b"{}"),
    ("/kv/nothing", b"{}"),
    ("/kv/range/", b"{}"),
    ("alpha/kv/range", b"{}"),
)


def malformed(material: Material) -> Call:
    path, raw = material.rng.choice(_MALFORMED)
    if path == "/lease/grant" and raw.startswith(b'{"ttl"'):
        # The id that the server chooses then belongs to the sequence.
        material.chosen_leases += 1
        return Call("/v3/lease/grant", {"ttl": "5", "ID": "0"})
    return Call("/v3" + path, raw=raw)
