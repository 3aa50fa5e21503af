"""Whether all instances behind one Redis take each other's sessions, by SECRET_KEY and SECRET_KEY_FALLBACK. A leaf.

Redis holds keyed hashes of the keys of the instance that started last, from which the keys cannot be told.
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


def other(url: str, secret_key: str, fallback: str = "") -> str:
    """Who started last with keys that do not go with these, and when; empty where each takes what the other signs.

    Raises Redis' errors and OSError.
    """
    with _client(url) as client:
        found = json.loads(client.get(KEY) or "{}")
    # Older releases wrote no fallback.
    theirs = [found[name] for name in ("hash", "fallback") if found.get(name)]
    ours = [_hash(key) for key in (secret_key, fallback) if key]
    if not found or (ours[0] in theirs and theirs[0] in ours):
        return ""
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found["started"]))
    return f"{found['host']}, which started at {moment}"


def note_start(url: str, secret_key: str, fallback: str = "") -> None:
    """Be the one who started last. Raises as ``other``."""
    row = {"hash": _hash(secret_key), "host": os.uname().nodename, "started": int(time.time())}
    if fallback:
        row["fallback"] = _hash(fallback)
    with _client(url) as client:
        client.set(KEY, json.dumps(row))


def _client(url: str) -> Any:
    from redis import Redis

    return Redis.from_url(url, **options(url, TIMEOUT_SECONDS))


def _hash(secret_key: str) -> str:
    return hmac.new(secret_key.encode(), PURPOSE, hashlib.sha256).hexdigest()
