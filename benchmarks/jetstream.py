"""The NATS server with JetStream of the durability benchmark."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from benchmarks.processes import ServerProcess
from benchmarks.publishers import STREAM

__all__ = ["JetStream"]

DUPLICATES_NS = 120 * 10**9


class JetStream(ServerProcess):
    """nats-server with one stream: file storage, R1, an fsync before each acknowledgement (`sync_interval: always`)."""

    def __init__(self, directory: Path, binary: str) -> None:
        super().__init__([binary, "-c", directory / "nats.conf"], directory)

    def prepare(self) -> None:
        (self.directory / "nats.conf").write_text(
            f'host: 127.0.0.1\nport: {self.port}\njetstream {{ store_dir: "{self.directory}", sync_interval: always }}\n'
        )

    def ready(self) -> None:
        stream = {
            "name": STREAM, "subjects": ["tw.*.*"], "storage": "file", "num_replicas": 1, "retention": "limits",
            "discard": "old", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "duplicate_window": DUPLICATES_NS,
        }  # fmt: skip
        body = json.dumps(stream)
        request = (
            f"CONNECT {{}}\r\nSUB _INBOX.s 1\r\nPUB $JS.API.STREAM.CREATE.{STREAM} _INBOX.s {len(body)}\r\n"
        )
        with socket.create_connection(("127.0.0.1", self.port), 10) as sock:
            sock.sendall(f"{request}{body}\r\n".encode())
            answer = b""
            while b"stream_create_response" not in answer:
                answer += sock.recv(65536) or b"stream_create_response: the connection was closed"
        if b'"did_create":true' not in answer:
            raise RuntimeError(answer.decode(errors="replace"))
