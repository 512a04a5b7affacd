"""Calls of the Auth service, and the few users and roles that they are about.

While authentication is on, 3.4 lets anybody do some things: those are asked as root, and the bench
sees to it that root has a token then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.conformance.calls import Call
from tests.conformance.material import Material

ROOT_PASSWORD: Final = "rootpw"

_USERS: Final = ("ann", "bob")
_ROLES: Final = ("r1", "r2")
_PASSWORDS: Final = ("pw", "pw2")
_TYPES: Final = ("READ", "WRITE", "READWRITE")


def founding(material: Material) -> list[Call]:
    """Root, users, roles and permissions, some of it left out now and then; and perhaps the lock
    is turned.
    """
    calls = [
        _call("/auth/user/add", {"name": "root", "password": ROOT_PASSWORD}),
        _call("/auth/user/grant", {"user": "root", "role": "root"}),
        _call("/auth/role/add", {"name": "r1"}),
        _call("/auth/role/grant", {"name": "r1", "perm": _permission(material)}),
        _call("/auth/role/grant", {"name": "r1", "perm": _permission(material)}),
        _call("/auth/user/add", {"name": "ann", "password": "pw"}),
        _call("/auth/user/grant", {"user": "ann", "role": "r1"}),
        _call("/auth/user/add", {"name": "bob", "password": "pw"}),
    ]
    if material.chance(0.5):
        calls.insert(0, _call("/auth/role/add", {"name": "root"}))
    if material.chance(0.15):
        calls.pop(material.rng.randrange(len(calls)))
    if material.chance(0.9):
        calls += [
            _call("/auth/enable"),
            _call("/auth/authenticate", {"name": "ann", "password": "pw"}),
            _call("/auth/authenticate", {"name": "bob", "password": "pw"}),
        ]
    return calls


def _call(path: str, body: Any = None) -> Call:
    return Call("/v3" + path, body or {})


def _permission(material: Material) -> dict[str, Any]:
    """Only such ranges as 3.7 takes too: 3.4 stores whatever it is given."""
    key = material.rng.choice(material.keys)
    permission: dict[str, Any] = {"permType": material.enum(_TYPES), "key": key}
    if material.chance(0.5):
        permission["range_end"] = material.rng.choice((b"\0", b"\0", key + b"\0", key + b"\xff"))
    if material.chance(0.2) and permission["permType"] in ("READ", 0):
        del permission["permType"]
    return permission


def _user(material: Material) -> str:
    return material.rng.choices((*_USERS, "root", "nobody", ""), (40, 30, 20, 9, 1))[0]


def _role(material: Material) -> str:
    return material.rng.choices((*_ROLES, "root", "norole", ""), (50, 30, 8, 9, 1))[0]


def _as_somebody(material: Material, path: str, body: Any = None) -> Call:
    return Call(material.path(path), body or {}, user=material.user())


def user_add(material: Material) -> Call:
    body: dict[str, Any] = {"name": _user(material), "password": material.rng.choice(_PASSWORDS)}
    if body["name"] != "root" and material.chance(0.2):
        body["options"] = {"no_password": True}
        del body["password"]
    return _as_somebody(material, "/auth/user/add", body)


def user_get(material: Material) -> Call:
    return _as_somebody(material, "/auth/user/get", {"name": _user(material)})


def user_list(material: Material) -> Call:
    return _as_somebody(material, "/auth/user/list")


def user_delete(material: Material) -> Call:
    return _as_somebody(material, "/auth/user/delete", {"name": _user(material)})


def user_change_password(material: Material) -> Call:
    body = {"name": _user(material), "password": material.rng.choice(_PASSWORDS)}
    return _as_somebody(material, "/auth/user/changepw", body)


def user_grant_role(material: Material) -> Call:
    body = {"user": _user(material), "role": _role(material)}
    return _as_somebody(material, "/auth/user/grant", body)


def user_revoke_role(material: Material) -> Call:
    body = {"name": _user(material), "role": _role(material)}
    return _as_somebody(material, "/auth/user/revoke", body)


def role_add(material: Material) -> Call:
    return _as_somebody(material, "/auth/role/add", {"name": _role(material)})


def role_get(material: Material) -> Call:
    role = material.rng.choice((*_ROLES, "norole"))
    return _as_somebody(material, "/auth/role/get", {"role": role})


def role_list(material: Material) -> Call:
    return _as_somebody(material, "/auth/role/list")


def role_delete(material: Material) -> Call:
    return _as_somebody(material, "/auth/role/delete", {"role": _role(material)})


def role_grant_permission(material: Material) -> Call:
    body = {"name": material.rng.choice((*_ROLES, "norole")), "perm": _permission(material)}
    return _as_somebody(material, "/auth/role/grant", body)


def role_revoke_permission(material: Material) -> Call:
    permission = _permission(material)
    permission.pop("permType", None)
    return _as_somebody(material, "/auth/role/revoke", {"role": _role(material), **permission})


def authenticate(material: Material) -> Call:
    name = _user(material)
    passwords = (ROOT_PASSWORD,) if name == "root" else _PASSWORDS
    password = material.rng.choice((*passwords, *passwords, "wrong", ""))
    return Call(material.path("/auth/authenticate"), {"name": name, "password": password})


def enable(material: Material) -> Call:
    return Call(material.path("/auth/enable"), user="root")


def disable(material: Material) -> Call:
    return _as_somebody(material, "/auth/disable")


TABLE: Final[tuple[tuple[int, Callable[[Material], Call]], ...]] = (
    (4, user_add),
    (3, user_get),
    (2, user_list),
    (2, user_delete),
    (2, user_change_password),
    (4, user_grant_role),
    (3, user_revoke_role),
    (3, role_add),
    (3, role_get),
    (2, role_list),
    (2, role_delete),
    (6, role_grant_permission),
    (3, role_revoke_permission),
    (7, authenticate),
    (2, enable),
    (1, disable),
)
