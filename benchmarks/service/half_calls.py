"""Calls that stop in the middle of a message, or read no answer. HTTP/2 is written by hand, since no gRPC client sends
such calls."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

from ps.wire.methods import Method

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
_WINDOW, _INITIAL_WINDOW = 65_535, 0x4
_FRAME = 16_384
"""Bytes of the largest frame that a server must accept."""
_ACK, _END_STREAM, _END_HEADERS = 0x1, 0x1, 0x4


class HalfCall:
    """One call on a connection of its own. It never makes the server's window larger: 64 KiB are all that the server
    can send."""

    def __init__(self, address: str, path: str | Method) -> None:
        host, _, port = address.rpartition(":")
        self.method = path
        self.ended = threading.Event()
        """Set when the server has ended the call."""
        self._windows = [_WINDOW, _WINDOW]  # of the connection, and of the call
        self._widened = threading.Condition()
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        name = path if isinstance(path, str) else path.path
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": name,
            ":authority": address,
            "te": "trailers",
            "content-type": "application/grpc",
        }
        headers = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_HEADERS, _END_HEADERS, 1, headers))
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, message: bytes, upto: int | None = None) -> None:
        """Sends a message, or the first bytes of it."""
        framed = b"\0" + struct.pack(">I", len(message)) + message
        self.send_bytes(framed[:upto])

    def send_bytes(self, data: bytes) -> None:
        """Sends the bytes of a message as they are."""
        with self._widened:
            self._windows = [window - len(data) for window in self._windows]
        self._socket.sendall(_frame(_DATA, 0, 1, data))

    def end(self) -> None:
        """Says that no more messages come."""
        self._socket.sendall(_frame(_DATA, _END_STREAM, 1, b""))

    def send_slowly(self, message: bytes) -> None:
        """Sends a message of any size, as fast as the server takes it, on a thread of its own."""

        def send() -> None:
            framed = b"\0" + struct.pack(">I", len(message)) + message
            with suppress(OSError):
                for start in range(0, len(framed), _FRAME):
                    piece = framed[start : start + _FRAME]
                    with self._widened:
                        self._widened.wait_for(lambda: min(self._windows) >= _FRAME or self.ended.is_set())
                    self.send_bytes(piece)

        threading.Thread(target=send, daemon=True).start()

    def has_ended(self) -> bool:
        """Returns whether the server has ended the call; its connection is closed then, too."""
        if self.ended.is_set():
            self.close()
        return self.ended.is_set()

    def close(self) -> None:
        """Closes the connection."""
        with suppress(OSError):  # it has been closed at the other end
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def __enter__(self) -> HalfCall:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as stream:
                while len(head := stream.read(9)) == 9:
                    kind, flags = head[3], head[4]
                    payload = stream.read(int.from_bytes(head[:3], "big"))
                    self._widen(kind, flags, int.from_bytes(head[5:], "big"), payload)
                    if kind in (_SETTINGS, _PING) and not flags & _ACK:
                        answer = b"" if kind == _SETTINGS else payload
                        self._socket.sendall(_frame(kind, _ACK, 0, answer))
                    if kind in (_RST_STREAM, _GOAWAY) or (kind == _HEADERS and flags & _END_STREAM):
                        break
        except (OSError, ValueError):  # closed
            pass
        with self._widened:
            self.ended.set()
            self._widened.notify_all()

    def _widen(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        with self._widened:
            if kind == _WINDOW_UPDATE:
                self._windows[min(stream, 1)] += int.from_bytes(payload, "big")
            if kind == _SETTINGS and not flags & _ACK:
                for setting, value in struct.iter_unpack(">HI", payload):
                    if setting == _INITIAL_WINDOW:
                        self._windows[1] += value - _WINDOW
            self._widened.notify_all()


def _text(value: str) -> bytes:
    """Encodes a literal in HPACK without Huffman's code; all of ours are shorter than 127 bytes."""
    return bytes([len(value)]) + value.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
