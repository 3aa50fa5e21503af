"""A webhook as Slack, Mattermost and their kin take it: JSON with a text."""

from __future__ import annotations

import html
import json
import urllib.request

from app.config import Settings
from app.telemetry.alert import SEND_SECONDS, Alert


class Webhook:
    """Posts to ALERTS_WEBHOOK_URL."""

    name = "webhook"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def send(self, alert: Alert) -> None:
        """Raises OSError where it is not taken."""
        # What callers sent may stand in it: no mention of people, no links that say another address.
        body = json.dumps({"text": html.escape(alert.lines(self._settings), quote=False)}).encode()
        url = self._settings.alerts_webhook_url.get_secret_value()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=SEND_SECONDS):
            pass
