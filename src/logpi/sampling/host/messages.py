"""Messages between this process and its workers: a length, and so many bytes."""

import struct
from typing import IO

LENGTH = struct.Struct("<Q")


def write_message(stream: IO[bytes], message: bytes) -> None:
    """All of it: a pipe that is not buffered may take a part at a time."""
    for data in (LENGTH.pack(len(message)), message):
        rest = memoryview(data)
        while rest:
            rest = rest[stream.write(rest) :]
