"""Sentry. Errors with their stack, and nothing that callers sent: no body, header, address or local variable."""

from __future__ import annotations

import sentry_sdk
from sentry_sdk.types import Event
from sentry_sdk.utils import event_from_exception

from app import __version__
from app.config import Settings
from app.telemetry.alert import FLUSH_SECONDS, Alert, clean


class Sentry:
    """Sends to SENTRY_DSN; its own thread does the sending."""

    def __init__(self, settings: Settings) -> None:
        self._client = sentry_sdk.Client(
            dsn=settings.sentry_dsn.get_secret_value(),
            environment=settings.env,
            release=f"cask@{__version__}",
            server_name=settings.server_name,
            include_local_variables=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            # Without them it would see each request and each log line by itself.
            default_integrations=False,
            auto_enabling_integrations=False,
            shutdown_timeout=FLUSH_SECONDS,
        )

    def send(self, alert: Alert) -> None:
        """Hand it to Sentry's own queue, and wait until it was sent."""
        with sentry_sdk.isolation_scope() as scope:
            scope.set_client(self._client)
            scope.set_tag("role", alert.role)
            scope.set_extra("repeats", alert.repeats)
            if alert.request_id:
                scope.set_tag("request_id", alert.request_id)
            self._client.capture_event(self._event(alert), scope=scope)
        self._client.flush(FLUSH_SECONDS)

    def _event(self, alert: Alert) -> Event:
        event: Event = {"level": "error", "logger": alert.logger, "fingerprint": [alert.fault], "message": alert.text}
        if alert.exception is None:
            return event
        found, _ = event_from_exception(alert.exception, client_options=self._client.options)
        for each in found["exception"]["values"]:
            each["value"] = clean(str(each["value"]))
        return {**found, **event}
