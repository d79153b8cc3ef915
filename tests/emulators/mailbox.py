"""An SMTP server that keeps what it is sent, and refuses what it is told to."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections import deque
from email.message import EmailMessage
from types import TracebackType
from typing import Self


class Mailbox:
    """Listens on a free loopback port in its context. `scripts`: answers to the next recipients; then 250."""

    def __init__(self) -> None:
        self.arrived: list[EmailMessage] = []
        self.scripts: deque[str] = deque()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"smtp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mailbox\r\n")
        while line := await reader.readline():
            command = line.split(b":")[0].strip().upper()
            answer = "250 ok"
            if command == b"RCPT TO":
                answer = self.scripts.popleft() if self.scripts else answer
            elif command == b"DATA":
                writer.write(b"354 go on\r\n")
                data = await reader.readuntil(b"\r\n.\r\n")
                message = email.message_from_bytes(data[:-3], policy=email.policy.default)
                assert isinstance(message, EmailMessage)
                self.arrived.append(message)
            elif command == b"QUIT":
                answer = "221 bye"
            writer.write(f"{answer}\r\n".encode())
            await writer.drain()
            if command == b"QUIT":
                break
        writer.close()
