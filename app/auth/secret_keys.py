"""Whether all instances behind one Redis sign sessions with the same SECRET_KEY. A leaf.

Redis holds a keyed hash of the key of the instance that started last, from which the key cannot be told.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from typing import Any

from app.storage.redis_connections import options

KEY = "cask:secret-key:1"
PURPOSE = b"Do instances behind one Redis sign alike?"
TIMEOUT_SECONDS = 1.0


def other(url: str, secret_key: str) -> str:
    """Who started last with another key, and when; empty where the keys are equal. Raises Redis' errors and OSError."""
    with _client(url) as client:
        found = json.loads(client.get(KEY) or "{}")
    if not found or hmac.compare_digest(found["hash"], _hash(secret_key)):
        return ""
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found["started"]))
    return f"{found['host']}, which started at {moment}"


def note_start(url: str, secret_key: str) -> None:
    """Be the one who started last. Raises as ``other``."""
    row = {"hash": _hash(secret_key), "host": os.uname().nodename, "started": int(time.time())}
    with _client(url) as client:
        client.set(KEY, json.dumps(row))


def _client(url: str) -> Any:
    from redis import Redis

    return Redis.from_url(url, **options(url, TIMEOUT_SECONDS))


def _hash(secret_key: str) -> str:
    return hmac.new(secret_key.encode(), PURPOSE, hashlib.sha256).hexdigest()
