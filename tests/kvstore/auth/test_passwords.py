"""Passwords as they are kept."""

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.auth.passwords import SALT_BYTES, check_password, hash_password, refuse_password
from kvstore.errors import ErrorKind, KvError


@settings(max_examples=10, deadline=None)
@given(password=st.text(max_size=18), salt=st.binary(min_size=SALT_BYTES, max_size=SALT_BYTES))
def test_a_hash_fits_its_password_only_and_any_bcrypt_understands_it(
    password: str, salt: bytes
) -> None:
    hashed = hash_password(password, salt, 4)
    assert check_password(password, hashed)
    assert not check_password(password + "x", hashed)
    assert bcrypt.checkpw(password.encode(), hashed.encode())
    assert hash_password(password, salt, 4) == hashed
    assert password not in hashed or len(password) < 4


def test_72_bytes_are_a_password_and_73_are_none() -> None:
    refuse_password("x" * 72)
    for password in ("x" * 73, "é" * 37):
        with pytest.raises(KvError) as refusal:
            refuse_password(password)
        assert refusal.value == ErrorKind.PASSWORD_TOO_LONG.error()


@pytest.mark.parametrize("hashed", ["", "plain", "$2b$04$tooshort"])
def test_what_is_no_hash_fits_nothing(hashed: str) -> None:
    assert not check_password("", hashed)
    assert not check_password(hashed, hashed)
