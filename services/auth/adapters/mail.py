"""E-mail, by the operator's SMTP server."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from email.message import EmailMessage
from typing import Final
from urllib.parse import unquote, urlsplit

from services.common.errors import InvalidField, Unavailable

_TIMEOUT_S: Final = 20.0
_PORTS: Final = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}


class Mailer:
    """Sends e-mail.

    Args:
        url: As `AuthSettings.smtp_url`; empty: none is sent.
        sender: Whom it is from.
    """

    def __init__(self, url: str, sender: str) -> None:
        self._sender = sender
        self._server = urlsplit(url) if url else None

    async def send(self, to: str, subject: str, text: str, *, message_id: str) -> None:
        """Send a message. Sent again it has the same id, by which a mailbox may know it.

        Raises InvalidField where the server refuses it for good, Unavailable where it cannot be sent now.
        """
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._sender, to, subject
        message["Message-ID"] = f"<{message_id}@{self._sender.rpartition('@')[2] or 'moa'}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        await asyncio.to_thread(self._send, message)

    def _send(self, message: EmailMessage) -> None:
        server = self._server
        if server is None:
            raise Unavailable("no SMTP server is set; set MOA_SMTP_URL")
        try:
            port = server.port or _PORTS[server.scheme]
            host = server.hostname or ""
            secure = ssl.create_default_context()
            with (
                smtplib.SMTP_SSL(host, port, timeout=_TIMEOUT_S, context=secure)
                if server.scheme == "smtps"
                else smtplib.SMTP(host, port, timeout=_TIMEOUT_S)
            ) as link:
                if server.scheme == "smtp+starttls":
                    link.starttls(context=secure)
                if server.username:
                    link.login(unquote(server.username), unquote(server.password or ""))
                link.send_message(message)
        except smtplib.SMTPRecipientsRefused as refused:
            if all(code >= 500 for code, _ in refused.recipients.values()):
                raise InvalidField("the mail server refuses this address") from refused
            raise Unavailable("the mail server does not take this now") from refused
        except (smtplib.SMTPException, OSError) as failure:
            raise Unavailable("the mail server cannot be used now") from failure
