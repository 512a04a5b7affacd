r"""Which of many ranges hold this key? A treap over the starts that knows the highest end below it.

A treap (Seidel and Aragon, 1996) is a search tree on its keys and a heap on random priorities, so
that it is about log n deep whatever the order of changes. Each node also knows the highest ``end``
in its subtree, and a search leaves out all that ended before the key (Cormen et al., Introduction
to Algorithms, interval trees)::

                  [f, m)  highest end t
                 /              \
       [b, k)  highest end t     [g, h)  highest end h
          \
           [c, t)
"""

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_MASK_64: Final = (1 << 64) - 1
_SEED: Final = 0x9E3779B97F4A7C15


class _Node(Generic[T]):
    __slots__ = ("bounds", "end", "end_max", "left", "priority", "right", "start", "value")

    def __init__(self, start: bytes, end: bytes, priority: int, value: T) -> None:
        self.start = start
        self.end = end
        self.bounds = (start, end)
        self.end_max = end
        self.priority = priority
        self.value = value
        self.left: _Node[T] | None = None
        self.right: _Node[T] | None = None

    def update(self) -> None:
        """After a change below: the highest end anew."""
        highest = self.end
        if self.left is not None and self.left.end_max > highest:
            highest = self.left.end_max
        if self.right is not None and self.right.end_max > highest:
            highest = self.right.end_max
        self.end_max = highest


class IntervalTree(Generic[T]):
    """A value for each range [start, end) of keys."""

    __slots__ = ("_random", "_root")

    def __init__(self) -> None:
        self._root: _Node[T] | None = None
        self._random = _SEED

    def __bool__(self) -> bool:
        return self._root is not None

    def add(self, start: bytes, end: bytes, value: T) -> None:
        """Add a range that is not there yet."""
        assert start < end, "an empty range holds no key"
        node = _Node(start, end, self._next_random(), value)
        left, right = _split(self._root, node.bounds)
        self._root = _join(_join(left, node), right)

    def remove(self, start: bytes, end: bytes) -> None:
        """Remove a range that is there."""
        self._root = _without(self._root, (start, end))

    def holding(self, key: bytes, found: list[T]) -> None:
        """Append the values of all ranges that hold the key."""
        waiting = [self._root]
        pop = waiting.pop
        push = waiting.append
        while waiting:
            node = pop()
            if node is None or node.end_max <= key:
                continue
            push(node.left)
            if node.start <= key:
                if key < node.end:
                    found.append(node.value)
                push(node.right)

    def depths(self) -> Iterator[int]:
        """The depth of each range, in order: what the balance promises is checked on it."""
        waiting: list[tuple[_Node[T] | None, int]] = [(self._root, 1)]
        while waiting:
            node, depth = waiting.pop()
            if node is not None:
                yield depth
                waiting += ((node.left, depth + 1), (node.right, depth + 1))

    def _next_random(self) -> int:
        # Marsaglia's xorshift64: a fixed sequence without a pattern, the same in every run.
        state = self._random
        state ^= (state << 13) & _MASK_64
        state ^= state >> 7
        state ^= (state << 17) & _MASK_64
        self._random = state
        return state


def _split(
    node: _Node[T] | None, bounds: tuple[bytes, bytes]
) -> tuple[_Node[T] | None, _Node[T] | None]:
    """A tree in two: below ``bounds``, and above it."""
    if node is None:
        return None, None
    assert node.bounds != bounds, "a range is added only once"
    if node.bounds < bounds:
        node.right, above = _split(node.right, bounds)
        node.update()
        return node, above
    below, node.left = _split(node.left, bounds)
    node.update()
    return below, node


def _join(left: _Node[T] | None, right: _Node[T] | None) -> _Node[T] | None:
    """Two trees in one: all of ``left`` is below all of ``right``."""
    if left is None:
        return right
    if right is None:
        return left
    if left.priority > right.priority:
        left.right = _join(left.right, right)
        left.update()
        return left
    right.left = _join(left, right.left)
    right.update()
    return right


def _without(node: _Node[T] | None, bounds: tuple[bytes, bytes]) -> _Node[T] | None:
    assert node is not None, "a range that is not there is removed"
    if node.bounds == bounds:
        return _join(node.left, node.right)
    if bounds < node.bounds:
        node.left = _without(node.left, bounds)
    else:
        node.right = _without(node.right, bounds)
    node.update()
    return node
