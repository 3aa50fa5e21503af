"""E-mail to operators."""

from __future__ import annotations

import smtplib
import ssl
import traceback
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from app.config import Settings
from app.telemetry.alerts import SEND_SECONDS, Alert, clean

MAX_SUBJECT = 120


class Email:
    """Sends to ALERTS_EMAIL_TO by the mail server of the settings."""

    name = "email"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def send(self, alert: Alert) -> None:
        """Raises OSError or SMTPException where the server does not take it."""
        settings = self._settings
        with self._connection() as server:
            if settings.alerts_smtp_security == "starttls":
                server.starttls(context=self._trust())
            if settings.alerts_smtp_user:
                server.login(settings.alerts_smtp_user, settings.alerts_smtp_password.get_secret_value())
            server.send_message(self._message(alert))

    def _connection(self) -> smtplib.SMTP:
        where = (self._settings.alerts_smtp_host, self._settings.alerts_smtp_port)
        if self._settings.alerts_smtp_security == "tls":
            # Without a context smtplib takes any certificate, and the password would go to anybody.
            return smtplib.SMTP_SSL(*where, timeout=SEND_SECONDS, context=self._trust())
        return smtplib.SMTP(*where, timeout=SEND_SECONDS)

    def _trust(self) -> ssl.SSLContext:
        """Whose certificates are believed: ALERTS_SMTP_CA_FILE's, or the system's."""
        return ssl.create_default_context(cafile=self._settings.alerts_smtp_ca_file)

    def _message(self, alert: Alert) -> EmailMessage:
        settings = self._settings
        message = EmailMessage()
        # A line break in a header would begin another one.
        message["Subject"] = " ".join(f"[cask {settings.env}] {alert.text}".split())[:MAX_SUBJECT]
        message["From"] = settings.alerts_email_from or f"cask@{settings.server_name}"
        message["To"] = ", ".join(settings.alerts_email_to)
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=settings.server_name)
        trace = clean("".join(traceback.format_exception(alert.exception))) if alert.exception else ""
        advice = "What to do: docs/operations.md, docs/errors.md. The log has it under the request's id."
        message.set_content("\n\n".join(part for part in (alert.lines(settings), trace, advice) if part))
        return message
