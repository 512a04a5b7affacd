"""Signed tokens: every method, what is refused, and what the setting may say."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import jwt as pyjwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kvstore.auth.identity import Identity
from kvstore.auth.jwt import JwtTokens
from kvstore.auth.token_setting import METHODS, JwtSetting, parse
from kvstore.errors import ConfigError, ErrorKind, KvError

NOW = 1_800_000_000.0
SECRET = b"a secret that is shared by all members and long enough for SHA-512..."
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_RSA = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]


def key_of(method: str, number: int = 0) -> Any:
    if method in _CURVES:
        return ec.generate_private_key(_CURVES[method])
    return ed25519.Ed25519PrivateKey.generate() if method == "EdDSA" else _RSA[number]


def files_of(key: Any) -> dict[str, bytes]:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {"priv": private, "pub": public}


def read_from(files: dict[str, bytes]) -> Callable[[str], bytes]:
    def read(path: str) -> bytes:
        if path not in files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return files[path]

    return read


def tokens(
    text: str, files: dict[str, bytes], wall_clock: Callable[[], float] = lambda: NOW
) -> JwtTokens:
    setting = parse(text)
    assert setting is not None
    return JwtTokens(setting, read_from(files), wall_clock)


def forge(found: JwtTokens, token: str, **claims: object) -> str:
    """The token with other claims, under its old signature."""
    header, _, signature = token.split(".")
    body = urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=").decode()
    return f"{header}.{body}.{signature}"


def assert_invalid(found: JwtTokens, token: str) -> None:
    with pytest.raises(KvError) as refusal:
        found.identify(token, 1)
    assert refusal.value == ErrorKind.INVALID_AUTH_TOKEN.error()


@pytest.mark.parametrize("method", METHODS)
def test_each_method_signs_what_it_verifies_and_any_library_reads_it(method: str) -> None:
    if method.startswith("HS"):
        files = {"priv": SECRET}
        text = f"jwt,sign-method={method},priv-key=priv,ttl=10m"
        public: Any = SECRET
    else:
        files = files_of(key_of(method))
        text = f"jwt,sign-method={method},pub-key=pub,priv-key=priv,ttl=10m"
        public = files["pub"]
    found = tokens(text, files)
    token = found.sign("alice", 7)
    assert found.identify(token, 99) == Identity("alice", 7)
    claims = pyjwt.decode(token, public, algorithms=[method], options={"verify_exp": False})
    assert claims == {"username": "alice", "revision": 7, "exp": int(NOW) + 600}
    assert_invalid(found, forge(found, token, username="root", revision=7))
    assert_invalid(found, token[:-2])


def test_a_member_with_the_public_key_alone_verifies_and_does_not_sign() -> None:
    files = files_of(key_of("ES256"))
    signer = tokens("jwt,sign-method=ES256,priv-key=priv", files)
    verifier = tokens("jwt,sign-method=ES256,pub-key=pub", files)
    assert signer.refuse_to_sign() is None
    assert verifier.identify(signer.sign("alice", 1), 1) == Identity("alice", 1)
    refusal = verifier.refuse_to_sign()
    assert refusal is not None
    assert "verify-only key" in refusal.message


def test_a_token_runs_out_also_if_it_was_verified_before() -> None:
    now = [NOW]
    found = tokens(
        "jwt,sign-method=HS256,priv-key=priv,ttl=1h30m", {"priv": SECRET}, lambda: now[0]
    )
    token = found.sign("alice", 1)
    now[0] += 5399.0
    assert found.identify(token, 1).user == "alice"
    now[0] += 1.0
    assert_invalid(found, token)


def test_the_method_is_never_the_tokens_to_choose() -> None:
    # The public key is no secret: a token signed with it as if it were one must not count.
    files = files_of(key_of("RS256"))
    found = tokens("jwt,sign-method=RS256,pub-key=pub,priv-key=priv", files)
    header = urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    claims = urlsafe_b64encode(b'{"username":"root","revision":1}').rstrip(b"=")
    algorithm: Any = pyjwt.algorithms.HMACAlgorithm(pyjwt.algorithms.HMACAlgorithm.SHA256)
    signature = urlsafe_b64encode(algorithm.sign(header + b"." + claims, files["pub"])).rstrip(b"=")
    assert_invalid(found, b".".join([header, claims, signature]).decode())
    none = urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=")
    assert_invalid(found, b".".join([none, claims, b""]).decode())


@pytest.mark.parametrize(
    "claims",
    [
        {"revision": 1},
        {"username": 5, "revision": 1},
        {"username": "alice"},
        {"username": "alice", "revision": "1"},
        {"username": "alice", "revision": True},
        # What the members themselves propose carries -1, and passes every check.
        {"username": "alice", "revision": -1},
        {"username": "", "revision": -1},
        {"username": "alice", "revision": -1.5},
        {"username": "alice", "revision": 1e300},
        {"username": "alice", "revision": 1, "exp": "never"},
        {"username": "alice", "revision": 1, "exp": NOW - 1},
        {"username": "alice", "revision": 1, "nbf": NOW + 1},
    ],
)
def test_signed_claims_that_say_too_little_are_refused(claims: dict[str, Any]) -> None:
    found = tokens("jwt,sign-method=HS256,priv-key=priv", {"priv": SECRET})
    assert_invalid(found, pyjwt.encode(claims, SECRET, algorithm="HS256"))


def test_a_signature_is_written_in_one_way_only() -> None:
    found = tokens("jwt,sign-method=HS256,priv-key=priv", {"priv": SECRET})
    token = found.sign("alice", 1)
    header, claims, signature = token.split(".")
    for other in (f"{signature}=", f"{signature[:5]}!{signature[5:]}", f" {signature}"):
        assert_invalid(found, f"{header}.{claims}.{other}")
    assert found.identify(token, 1) == Identity("alice", 1)


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "....", "é.é.é", "VhgmAvJOCAQwJQxb.44"])
def test_what_is_no_token_is_refused(token: str) -> None:
    assert_invalid(tokens("jwt,sign-method=HS256,priv-key=priv", {"priv": SECRET}), token)


def test_a_nest_too_deep_to_be_read_is_no_token() -> None:
    found = tokens("jwt,sign-method=HS256,priv-key=priv", {"priv": SECRET})
    header, claims, signature = found.sign("alice", 1).split(".")
    deep = urlsafe_b64encode(b'{"a":' + b"[" * 5000).rstrip(b"=").decode()
    assert_invalid(found, f"{deep}.{claims}.{signature}")
    assert_invalid(found, f"{header}.{deep}.{signature}")


def test_simple_is_a_setting_and_so_is_every_option_of_jwt() -> None:
    assert parse("simple") is None
    assert parse("jwt,sign-method=PS384,pub-key=a,priv-key=b,ttl=90s") == JwtSetting(
        "PS384", "a", "b", 90.0
    )
    assert parse("jwt,sign-method=EdDSA,pub-key=a") == JwtSetting("EdDSA", "a", "", 300.0)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "simple"),
        ("plain", "simple"),
        ("jwt", "sign-method must be one of RS256"),
        ("jwt,sign-method=none,priv-key=k", "'none'"),
        ("jwt,sign-method=RS256", "needs priv-key=FILE"),
        ("jwt,sign-method=HS256,pub-key=k", "shared secret"),
        ("jwt,sign-method=RS256,priv-key=k,ttl=5", "ttl must be a duration"),
        ("jwt,sign-method=RS256,priv-key=k,ttl=0s", "ttl must be a duration"),
        ("jwt,sign-method=RS256,key=k", "priv-key=…"),
        ("jwt,sign-method=RS256,priv-key", "priv-key=…"),
        ("jwt,sign-method=RS256,priv-key=a,priv-key=b", "given twice"),
    ],
)
def test_a_wrong_setting_is_told_what_may_stand_there(text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=r"^--auth-token: ") as refusal:
        parse(text)
    assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({}, "priv: No such file"),
        ({"priv": b"secret stuff", "pub": b""}, "priv holds no key that RS256 can use"),
        ({**files_of(_RSA[0]), "pub": files_of(_RSA[1])["pub"]}, "is not the public key of"),
        ({**files_of(_RSA[0]), "priv": files_of(_RSA[0])["pub"]}, "holds no private key"),
        (files_of(key_of("ES256")), "holds no key that RS256 can use"),
    ],
)
def test_keys_that_cannot_be_used_are_named_and_not_shown(
    files: dict[str, bytes], word: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        tokens("jwt,sign-method=RS256,pub-key=pub,priv-key=priv", files)
    assert word in str(refusal.value)
    assert "secret stuff" not in str(refusal.value)


def test_a_short_secret_is_told_of() -> None:
    assert tokens("jwt,sign-method=HS256,priv-key=priv", {"priv": b"short"}).weakness
    assert not tokens("jwt,sign-method=HS256,priv-key=priv", {"priv": SECRET}).weakness


def test_the_claims_can_be_read_by_whoever_has_the_token() -> None:
    found = tokens("jwt,sign-method=HS256,priv-key=priv", {"priv": SECRET})
    body = found.sign("alice", 3).split(".")[1]
    assert msgspec.json.decode(urlsafe_b64decode(body + "==")) == {
        "username": "alice",
        "revision": 3,
        "exp": int(NOW) + 300,
    }
