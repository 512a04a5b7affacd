"""Passwords as they are kept: hashed with bcrypt. Slow by design: not on the loop."""

from base64 import b64encode
from typing import Final

import bcrypt

from kvstore.errors import ErrorKind

PASSWORD_BYTES_MAX: Final = 72
"""What bcrypt looks at."""

SALT_BYTES: Final = 16

_STANDARD: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_OF_BCRYPT: Final = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_SALT_DIGITS: Final = 22


def refuse_password(password: str) -> None:
    """Check what can be checked before it is hashed.

    Raises:
        KvError: PASSWORD_TOO_LONG.
    """
    if len(_bytes(password)) > PASSWORD_BYTES_MAX:
        raise ErrorKind.PASSWORD_TOO_LONG.error()


def hash_password(password: str, salt: bytes, cost: int) -> str:
    """What is kept of a password.

    Args:
        password: At most 72 bytes.
        salt: 16 random bytes.
        cost: 2^cost rounds; 4 to 31.
    """
    assert len(salt) == SALT_BYTES, "a salt of bcrypt has 16 bytes"
    digits = b64encode(salt).translate(bytes.maketrans(_STANDARD, _OF_BCRYPT))[:_SALT_DIGITS]
    return bcrypt.hashpw(_bytes(password), b"$2b$%02d$%b" % (cost, digits)).decode()


def check_password(password: str, hashed: str) -> bool:
    """Whether this is the password. What nobody can have set is no hash, and matches nothing."""
    try:
        return bcrypt.checkpw(_bytes(password)[:PASSWORD_BYTES_MAX], hashed.encode())
    except ValueError:
        return False


def _bytes(password: str) -> bytes:
    # A lone surrogate is no character, but may be in a JSON string.
    return password.encode(errors="surrogatepass")
