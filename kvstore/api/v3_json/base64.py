"""bytes in JSON: standard base64 with padding out; every form of RFC 4648 §4 and §5 in.

As protobuf's Go runtime reads it: the URL-safe alphabet if a ``-`` or ``_`` occurs (mixed ones are
refused), padding required exactly when the length is a multiple of four, line breaks skipped.
"""

from binascii import Error, a2b_base64, b2a_base64
from typing import Final

_URL_SAFE: Final = str.maketrans("-_", "+/")


def encode(value: bytes) -> bytes:
    """Standard base64, padded."""
    return b2a_base64(value, newline=False)


def decode(text: str) -> bytes:
    """Bytes from any base64 form.

    Raises:
        ValueError: not base64.
    """
    padded = len(text) % 4 == 0
    if "-" in text or "_" in text:
        if "+" in text or "/" in text:
            raise ValueError("two alphabets in one base64 text")
        text = text.translate(_URL_SAFE)
    if "\n" in text or "\r" in text:
        text = text.replace("\n", "").replace("\r", "")
    if not padded:
        if "=" in text:
            raise ValueError("base64 with padding in the wrong place")
        text += "=" * (-len(text) % 4)
    try:
        return a2b_base64(text, strict_mode=True)
    except Error as error:
        raise ValueError(str(error)) from None
