"""What each application of ours begins with: the settings on it, its role, and its figures once it serves."""

from __future__ import annotations

import sys
from typing import Any

from flask import Flask

from app.config import Settings
from app.errors import SettingsError
from app.supervision import pulse
from app.telemetry import alerts, logs, metrics, traces


def begin(app: Flask, settings: Settings) -> str:
    """Configure the log and put the settings on the app. Returns the role of this process: ``web`` or ``ops``."""
    _refuse_sub_interpreter()
    role = _role()
    logs.configure(settings, role)
    app.secret_key = settings.secret_key.get_secret_value()
    fallback = settings.secret_key_fallback.get_secret_value()
    app.config["SECRET_KEY_FALLBACKS"] = [fallback] if fallback else None
    app.extensions["settings"] = settings
    app.extensions["role"] = role
    app.extensions["is_under_apache"] = mod_wsgi() is not None
    return role


def start_telemetry(settings: Settings, role: str) -> None:
    """This process serves: its errors and figures are to be heard of."""
    # First, so that the end of a process before this one is told too.
    alerts.configure(settings, role)
    metrics.begin(settings.state_dir, role)
    metrics.watch_memory(role)
    pulse.start()
    traces.configure(settings, role)


def mod_wsgi() -> Any:
    """mod_wsgi's own module, which exists only in a process of Apache; else None."""
    module = sys.modules.get("mod_wsgi")
    return module if hasattr(module, "process_group") else None


def _role() -> str:
    module = mod_wsgi()
    return "ops" if module and module.process_group == "ops" else "web"


def _refuse_sub_interpreter() -> None:
    """Libraries in C hang without a word in a named sub-interpreter."""
    module = mod_wsgi()
    if module and module.application_group:
        raise SettingsError(
            f"The application group is {module.application_group!r}; expected %{{GLOBAL}}.",
            hint="Add `WSGIApplicationGroup %{GLOBAL}` to the Apache configuration.",
        )
