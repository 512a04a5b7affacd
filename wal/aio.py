"""How does a sync go on while no thread waits for it? As a request to the kernel (Linux's AIO).

``io_submit(2)`` with IOCB_CMD_FDSYNC (Linux 4.18) has a worker of the kernel do to a file what
``fdatasync(2)`` does; an eventfd that the event loop watches says when ``io_getevents(2)`` has the
result. A thread that waits in ``fdatasync`` needs the interpreter's lock to begin and again to
report, and whoever computes on the loop meanwhile gives it up late: half a millisecond and more
for a sync that takes a fifth of one.

What is submitted is a struct iocb of 64 bytes (linux/aio_abi.h), here on a little endian system:

     0        4        8        12       16   18   20      24
    +--------+--------+--------+--------+----+----+-------+----------------+----------------+
    | aio_data        | key    |rw_flags| op |prio|fildes | aio_buf        | aio_nbytes     |
    +--------+--------+--------+--------+----+----+-------+----------------+----------------+
     40                48                56       60       64
    +-----------------+-----------------+--------+--------+
    | aio_offset      | aio_reserved2   | flags  | resfd  |
    +-----------------+-----------------+--------+--------+

``aio_data`` comes back with the result: the number of the request. ``op`` is IOCB_CMD_FDSYNC (3),
``fildes`` the file's descriptor, ``flags`` IOCB_FLAG_RESFD (1), and ``resfd`` the eventfd; all
else is 0. What comes back is a struct io_event of 32 bytes:

     0                 8                 16                24                32
    +-----------------+-----------------+-----------------+-----------------+
    | data            | obj             | res             | res2            |
    +-----------------+-----------------+-----------------+-----------------+

``res`` is 0, or an error's number, negative.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

_IOCB: Final = struct.Struct("<QIiHhIQQqQII")
_IO_EVENT: Final = struct.Struct("<QQqq")
_FDSYNC: Final = 3
_RESFD: Final = 1
_POINTER_BYTES: Final = 8
_TIMESPEC_BYTES: Final = 16
_REQUESTS: Final = 1
"""At a time: the log syncs one batch after the other."""


class _Numbers(NamedTuple):
    setup: int
    destroy: int
    getevents: int
    submit: int


_NUMBERS: Final = {
    "x86_64": _Numbers(setup=206, destroy=207, getevents=208, submit=209),
    "aarch64": _Numbers(setup=0, destroy=1, submit=2, getevents=4),
}
"""asm/unistd_64.h and asm-generic/unistd.h: the C library has no functions for them."""


class Readers(Protocol):
    """What is needed of an event loop: it watches descriptors."""

    def add_reader(self, descriptor: int, callback: Callable[[], object], /) -> object:
        """Call back whenever the descriptor can be read."""

    def remove_reader(self, descriptor: int, /) -> object:
        """Watch it no more."""


class Calls:
    """The system calls, for one request at a time. All of them raise ``OSError``.

    Raises:
        OSError: ENOSYS: not here.
    """

    def __init__(self) -> None:
        numbers = _NUMBERS.get(platform.machine()) if sys.platform == "linux" else None
        if numbers is None or sys.maxsize < 2**32 or not hasattr(os, "eventfd"):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self._numbers = numbers
        # One that keeps the interpreter's lock: none of these calls waits, with one exception at
        # the very end, and to get the lock back could take longer than the call.
        self._syscall = ctypes.PyDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._syscall.argtypes = [ctypes.c_long] * 6
        self._iocb = ctypes.create_string_buffer(_IOCB.size)
        self._iocbs = ctypes.create_string_buffer(
            struct.pack("<Q", ctypes.addressof(self._iocb)), _POINTER_BYTES
        )
        self._event = ctypes.create_string_buffer(_IO_EVENT.size)
        self._at_once = ctypes.create_string_buffer(_TIMESPEC_BYTES)

    def setup(self) -> int:
        """Make a context for requests, and return it. EAGAIN: the system has no more of them
        (fs.aio-max-nr).
        """
        context = ctypes.c_ulong(0)
        self._call(self._numbers.setup, _REQUESTS, ctypes.addressof(context))
        return context.value

    def submit_sync(self, context: int, descriptor: int, signal: int, number: int) -> None:
        """Ask for a file to be synced; the eventfd ``signal`` tells when that has ended. EAGAIN:
        there is no room for the request. EINVAL: the kernel or the file cannot do that.
        """
        _IOCB.pack_into(
            self._iocb, 0, number, 0, 0, _FDSYNC, 0, descriptor, 0, 0, 0, 0, _RESFD, signal
        )
        self._call(self._numbers.submit, context, 1, ctypes.addressof(self._iocbs))

    def result(self, context: int, *, wait: bool) -> tuple[int, int] | None:
        """Take a request that has ended.

        Args:
            context: As ``setup`` returned it.
            wait: Whether to wait for one, as long as that takes.

        Returns:
            Its number, and 0 or what it failed with as a negative error number; None: it goes on.
        """
        timeout = 0 if wait else ctypes.addressof(self._at_once)
        taken = self._call(
            self._numbers.getevents, context, 1, 1, ctypes.addressof(self._event), timeout
        )
        if not taken:
            return None
        number, _iocb, result, _unused = _IO_EVENT.unpack(self._event.raw)
        return number, result

    def destroy(self, context: int) -> None:
        """End a context. No request may be under way: that would be waited for."""
        self._call(self._numbers.destroy, context)

    def _call(self, number: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0) -> int:
        # A signal that arrives while one waits ends the call, and nothing else (signal(7)).
        while (result := self._syscall(number, a, b, c, d, e)) < 0:
            error = ctypes.get_errno()
            if error != errno.EINTR:
                raise OSError(error, os.strerror(error))
        return int(result)


class KernelSync:
    """Syncs files, one at a time, by the kernel's own workers.

    Args:
        readers: The event loop's.
        calls: The system calls.

    Raises:
        OSError: The system lets us have no context or no eventfd.
        NotImplementedError: The loop watches no descriptors.

    Attributes:
        is_busy: Whether a sync is under way. Its file must stay open that long.
    """

    __slots__ = ("_calls", "_context", "_done", "_number", "_readers", "_signal", "is_busy")

    def __init__(self, readers: Readers, calls: Calls) -> None:
        self._readers = readers
        self._calls = calls
        self._number = 0
        self._done: Callable[[OSError | None], None] | None = None
        self.is_busy = False
        self._context = calls.setup()
        self._signal = -1
        try:
            self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            readers.add_reader(self._signal, self._on_signal)
        except BaseException:
            self._release()
            raise

    def start(self, descriptor: int, done: Callable[[OSError | None], None]) -> None:
        """Begin to sync a file; ``done`` is called on the loop with None, or with what the sync
        failed with.

        Raises:
            OSError: The kernel did not take the request: nothing is synced, ``done`` is not called.
        """
        assert not self.is_busy, "one sync at a time"
        self._number += 1
        self._calls.submit_sync(self._context, descriptor, self._signal, self._number)
        self._done = done
        self.is_busy = True

    def close(self) -> None:
        """Wait for the sync under way, if there is one, and report it; then let everything go."""
        self._readers.remove_reader(self._signal)
        while self.is_busy:
            self._take(wait=True)
        self._release()

    def _on_signal(self) -> None:
        try:
            os.eventfd_read(self._signal)
        except BlockingIOError:
            return
        self._take(wait=False)

    def _take(self, *, wait: bool) -> None:
        done = self._done
        if done is None:
            return
        outcome: OSError | None = None
        try:
            taken = self._calls.result(self._context, wait=wait)
        except OSError as error:
            # Whether it is durable cannot be known any more: that is a failure.
            outcome = error
        else:
            if taken is None:
                return
            number, result = taken
            assert number == self._number, "this answers a request that was never made"
            if result < 0:
                outcome = OSError(-result, os.strerror(-result))
        self._done = None
        self.is_busy = False
        done(outcome)

    def _release(self) -> None:
        self._calls.destroy(self._context)
        if self._signal >= 0:
            os.close(self._signal)
            self._signal = -1
