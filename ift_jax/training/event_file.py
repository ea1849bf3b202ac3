"""TensorBoard event files with scalars, written without TensorFlow or PyTorch.

The format is small: a file of TFRecords, each of which holds an `Event` protocol buffer. Packages
that write it import PyTorch and cloud clients where these are installed, which took 1.4 s of a
run's start; this module imports nothing.

Formats: tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto, and
tensorflow/core/lib/io/record_writer.h.
"""

import os
import re
import socket
import struct
import time
from collections.abc import Mapping

import numpy as np

from ift_jax.io.write_errors import write_errors

# Field numbers of the protocol buffers.
EVENT_WALL_TIME = 1
EVENT_STEP = 2
EVENT_FILE_VERSION = 3
EVENT_SUMMARY = 5
EVENT_SESSION_LOG = 7
SUMMARY_VALUE = 1
VALUE_TAG = 1
VALUE_SIMPLE_VALUE = 2
SESSION_LOG_STATUS = 1
SESSION_START = 1

# Wire types of the protocol buffers' encoding.
_VARINT = 0
_FIXED_64_BITS = 1
_LENGTH_DELIMITED = 2
_FIXED_32_BITS = 5


class EventFile:
    """An event file that is appended to during a run."""

    def __init__(self, folder: str, step: int):
        """Create the file.

        Args:
            folder: The folder of the event files; it is created if necessary.
            step: The step that the run starts or resumes at. TensorBoard then hides what older
                files hold of later steps; 0 hides nothing.
        """
        seconds = f"{int(time.time()):010d}"
        name = f"events.out.tfevents.{seconds}.{socket.gethostname()}.{os.getpid()}"
        self._path = os.path.join(folder, name)
        with write_errors(self._path):
            os.makedirs(folder, exist_ok=True)
            self._file = open(self._path, "ab")  # noqa: SIM115 - held for the run.
        self._write(_bytes_field(EVENT_FILE_VERSION, b"brain.Event:2"))
        if step:
            session_log = _varint_field(SESSION_LOG_STATUS, SESSION_START)
            self._write(
                _varint_field(EVENT_STEP, step + 1) + _bytes_field(EVENT_SESSION_LOG, session_log)
            )

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append scalars of a step, by tag."""
        values = [
            _bytes_field(VALUE_TAG, _clean_tag(tag).encode())
            + _float_field(VALUE_SIMPLE_VALUE, value)
            for tag, value in scalars.items()
        ]
        summary = b"".join(_bytes_field(SUMMARY_VALUE, value) for value in values)
        self._write(_varint_field(EVENT_STEP, step) + _bytes_field(EVENT_SUMMARY, summary))

    def _write(self, event: bytes) -> None:
        """Append one event, to which the time is added, and flush."""
        content = _double_field(EVENT_WALL_TIME, time.time()) + event
        length = struct.pack("<Q", len(content))
        with write_errors(self._path):
            self._file.write(length + _masked_crc(length) + content + _masked_crc(content))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _clean_tag(tag: str) -> str:
    """Replace what TensorBoard does not accept in a tag."""
    return re.sub(r"[^-/\w.]", "_", tag).lstrip("/")


def _varint(value: int) -> bytes:
    """Encode a non-negative integer, 7 bits per byte, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint_field(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _varint(value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _key(number, _LENGTH_DELIMITED) + _varint(len(value)) + value


def _double_field(number: int, value: float) -> bytes:
    return _key(number, _FIXED_64_BITS) + struct.pack("<d", value)


def _float_field(number: int, value: float) -> bytes:
    # NumPy turns a value that is too large for float32 into infinity, where `struct` would raise.
    with np.errstate(over="ignore"):
        encoded = np.float32(value).astype("<f4").tobytes()
    return _key(number, _FIXED_32_BITS) + encoded


def _crc32c_table() -> list[int]:
    """Return the checksum of every byte, for the reversed Castagnoli polynomial."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC32C_TABLE = _crc32c_table()


def _masked_crc(content: bytes) -> bytes:
    """Return the masked CRC-32C that a TFRecord holds of its length and of its content."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _CRC32C_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    rotated = crc >> 15 | crc << 17
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)
