"""A sequence that may be longer than memory: 500,000 objects, or what was found about them.

The first few thousand are kept as they are, and so is the block that is being filled; full blocks are written to a temporary file that has
no name. Pickled block by block, because findings share most of their text: within a block each text is written once. Rejected: JSON, which
writes all of it each time, and a database.
"""

import pickle
import zlib
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import IO, Generic, TypeVar

T = TypeVar("T")
_HELD = 4096
"""Items that nobody writes to a disk, and how much text they may be."""
_HELD_WEIGHT = 16 * 1024 * 1024
_BLOCK = 256
_BLOCK_WEIGHT = 4 * 1024 * 1024


class Spill(Generic[T]):
    """Items in the order in which they were appended; read as often as one likes, but not changed meanwhile."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._held: list[T] = []
        self._blocks: list[tuple[int, int]] = []
        self._pending: list[T] = []
        self._weight = 0
        self._length = 0

    def append(self, item: T, weight: int = 0) -> None:
        """Adds an item.

        Args:
            item: must not change any more.
            weight: about how many bytes of text it is, where that may be many.
        """
        self._length += 1
        self._weight += weight
        if self._file is None and len(self._held) < _HELD and self._weight < _HELD_WEIGHT and not self._pending:
            self._held.append(item)
            return
        if not self._pending:
            self._weight = weight
        self._pending.append(item)
        if len(self._pending) >= _BLOCK or self._weight >= _BLOCK_WEIGHT:
            self._write()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        yield from self._held
        if self._file is not None:
            for start, size in self._blocks:
                self._file.seek(start)
                yield from pickle.loads(zlib.decompress(self._file.read(size)))  # noqa: S301 -- our own file, which nobody else can open
        yield from self._pending

    def close(self) -> None:
        """Gives the room back."""
        if self._file is not None:
            self._file.close()

    def _write(self) -> None:
        if self._file is None:
            self._file = TemporaryFile(prefix="mlwarden-")  # noqa: SIM115 -- see close
        start = self._file.seek(0, 2)
        self._blocks.append((start, self._file.write(zlib.compress(pickle.dumps(self._pending, protocol=5), 1))))
        self._pending, self._weight = [], 0
