"""A webhook as Slack, Mattermost and their kin take it: JSON with a text."""

from __future__ import annotations

import html
import json
import urllib.request

from app.config import Settings
from app.telemetry.alert import SEND_SECONDS, Alert


def send(settings: Settings, alert: Alert) -> None:
    """Post to ALERTS_WEBHOOK_URL. Raises OSError where it is not taken."""
    # What callers sent may stand in it: no mention of people, no links that say another address.
    body = json.dumps({"text": html.escape(alert.lines(settings), quote=False)}).encode()
    url = settings.alerts_webhook_url.get_secret_value()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SEND_SECONDS):
        pass
