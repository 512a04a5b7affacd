"""Calls of the KV service."""

from __future__ import annotations

from typing import Any, Final

from tests.conformance.calls import Call, Revision
from tests.conformance.material import Material

_ORDERS: Final = ("NONE", "ASCEND", "DESCEND")
_TARGETS: Final = ("KEY", "VERSION", "CREATE", "MOD", "VALUE")
_RESULTS: Final = ("EQUAL", "GREATER", "LESS", "NOT_EQUAL")
_COMPARED: Final = ("version", "create_revision", "mod_revision", "value", "lease")
_COMPARE_TARGETS: Final = ("VERSION", "CREATE", "MOD", "VALUE", "LEASE")
_BOUNDS: Final = (
    "min_mod_revision",
    "max_mod_revision",
    "min_create_revision",
    "max_create_revision",
)
NEST_MAX: Final = 2


def put(material: Material) -> Call:
    return Call(material.path("/kv/put"), put_body(material), user=material.user())


def put_body(material: Material) -> dict[str, Any]:
    body: dict[str, Any] = {"key": material.key()}
    if material.chance(0.93):
        body["value"] = material.value()
    if material.chance(0.25):
        body["lease"] = material.lease()
    body |= material.flags(0.2, "prev_kv")
    if material.chance(0.12):
        body |= material.flags(0.6, "ignore_value", "ignore_lease")
        if body.get("ignore_value") and material.chance(0.8):
            body.pop("value", None)
        if body.get("ignore_lease") and material.chance(0.8):
            body.pop("lease", None)
    return material.spelled(body)


def range_(material: Material) -> Call:
    return Call(material.path("/kv/range"), range_body(material), user=material.user())


def range_body(material: Material, *, inside: bool = False) -> dict[str, Any]:
    body = material.range_of_keys(0.3)
    if material.chance(0.3):
        body["revision"] = material.revision()
    elif material.chance(0.05) and not inside:
        body["revision"] = material.rng.choice((-1, -5, 2**62))
    if material.chance(0.3):
        body["limit"] = material.count()
    if material.chance(0.35):
        body["sort_target"] = material.enum(_TARGETS)
    if material.chance(0.35):
        body["sort_order"] = material.enum(_ORDERS)
    body |= material.flags(0.12, "serializable", "keys_only", "count_only")
    if material.chance(0.12):
        bound = material.rng.choice(_BOUNDS)
        body[bound] = material.rng.choice((Revision(-material.rng.randint(0, 4)), Revision(1), -1))
    return material.spelled(body)


def delete_range(material: Material) -> Call:
    body = delete_body(material)
    return Call(material.path("/kv/deleterange"), body, user=material.user())


def delete_body(material: Material) -> dict[str, Any]:
    return material.spelled(material.range_of_keys(0.6) | material.flags(0.4, "prev_kv"))


def compaction(material: Material) -> Call:
    # 3.4 lets anybody compact.
    user = "root" if material.auth else ""
    body: dict[str, Any] = material.flags(0.3, "physical")
    if material.chance(0.95):
        body["revision"] = Revision(-material.rng.randint(-1, 6))
    return Call(material.path("/kv/compaction"), body, user=user)


def txn(material: Material) -> Call:
    body = txn_body(material, 0 if not material.auth else NEST_MAX)
    if material.auth and not any(body.values()):
        # What asks for nothing, etcd answers to nobody too, and ours does not (divergence.md).
        body = {"compare": [compare(material)]}
    body = _without_deadly_puts(body, erased=_erases(body))
    user = material.user()
    if material.auth and user != "root":
        body = _without_guarded_fields(body)
    return Call(material.path("/kv/txn"), body, user=user)


def _without_deadly_puts(tree: Any, *, erased: bool) -> Any:
    """3.4 dies of a put that keeps what an unbounded delete beside it took: such a put keeps all
    its fields here.
    """
    if isinstance(tree, dict):
        kept = ("ignore_value", "ignore_lease", "ignoreLease")
        return {
            name: _without_deadly_puts(value, erased=erased)
            for name, value in tree.items()
            if not (erased and name in kept)
        }
    if isinstance(tree, list):
        return [_without_deadly_puts(item, erased=erased) for item in tree]
    return tree


def _without_guarded_fields(tree: Any, inside: str = "") -> Any:
    """In a transaction 3.4 looks only at the key of a put: neither reading what was there before
    nor the lease needs a permission.
    """
    if isinstance(tree, dict):
        is_put = inside in ("request_put", "requestPut")
        return {
            name: _without_guarded_fields(value, name)
            for name, value in tree.items()
            if not (is_put and name in ("prev_kv", "prevKv", "lease"))
        }
    if isinstance(tree, list):
        return [_without_guarded_fields(item) for item in tree]
    return tree


def _erases(tree: Any) -> bool:
    """Whether there is a delete without an end among the operations."""
    if isinstance(tree, list):
        return any(_erases(item) for item in tree)
    if not isinstance(tree, dict):
        return False
    delete = tree.get("request_delete_range", {})
    if b"\0" in (delete.get("range_end"), delete.get("rangeEnd")):
        return True
    return any(_erases(value) for value in tree.values())


def txn_body(material: Material, depth: int = 0) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if material.chance(0.8):
        body["compare"] = [compare(material) for _ in range(_few(material))]
    if material.chance(0.9):
        body["success"] = [operation(material, depth) for _ in range(_few(material))]
    if material.chance(0.6):
        body["failure"] = [operation(material, depth) for _ in range(_few(material))]
    return body


def _few(material: Material) -> int:
    """Mostly one to three; now and then more than a transaction may have."""
    return material.rng.choices((0, 1, 2, 3, 4, 9), (5, 40, 30, 15, 9, 1))[0]


def compare(material: Material) -> dict[str, Any]:
    body: dict[str, Any] = material.range_of_keys(0.8)
    choice = material.rng.randrange(len(_COMPARED))
    if material.chance(0.95):
        body["target"] = material.rng.choice((_COMPARE_TARGETS[choice], choice))
    if material.chance(0.95):
        body["result"] = material.enum(_RESULTS)
    if material.chance(0.05):
        # A union member that is not the target's.
        choice = material.rng.randrange(len(_COMPARED))
    field = _COMPARED[choice]
    if material.chance(0.95):
        body[field] = _compared_value(material, field)
    return material.spelled(body)


def _compared_value(material: Material, field: str) -> Any:
    rng = material.rng
    if field == "value":
        return material.value()
    if field == "version":
        return rng.choice((0, 1, "2", 3))
    if field == "lease":
        return rng.choice((0, material.lease()))
    return rng.choice((0, Revision(-rng.randint(0, 4)), Revision(-rng.randint(0, 8))))


def operation(material: Material, depth: int) -> dict[str, Any]:
    roll = material.rng.random()
    if roll < 0.01:
        return {}
    if roll < 0.45:
        return material.spelled({"request_put": put_body(material)})
    if roll < 0.68:
        return material.spelled({"request_range": range_body(material, inside=True)})
    if roll < 0.85 or depth >= NEST_MAX:
        return {"request_delete_range": delete_body(material)}
    return {"request_txn": txn_body(material, depth + 1)}
