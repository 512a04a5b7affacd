"""A conversation over one request: pieces of the body in, messages out, both at the same time."""

from typing import Protocol


class Exchange(Protocol):
    """What a streaming face needs of the lane that carries it.

    The head of the response leaves with the first message, so an error before that can still have a
    status of its own. A face that raises ``KvError`` ends the stream with that error.
    """

    async def receive(self) -> bytes:
        """The next piece of the body; b"" once it has ended."""

    async def send(self, messages: list[bytes]) -> None:
        """Write messages, each as one chunk; returns when there is room for more.

        Raises:
            ConnectionError: nobody is there any more.
        """

    async def send_part(self, part: bytes, *, last: bool) -> None:
        """Write a message too big to hold at once, part by part."""
