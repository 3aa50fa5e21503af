"""One alert: what it says, and what it must not say."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.config import Settings

SEND_SECONDS = 5.0
FLUSH_SECONDS = 3.0
# What an error's words may quote of a request: bytes as Python prints them, tokens, base64.
QUOTED = re.compile(r"b(['\"])(?:\\.|(?!\1).){16,}?(?:\1|$)|[A-Za-z0-9+_=-]{36,}", re.S)


def clean(text: str) -> str:
    """Without anything long enough to be a token or a part of an image."""
    return QUOTED.sub(lambda found: found[0][:4] + "…", text)


@dataclass(frozen=True)
class Alert:
    """One fault. ``repeats``: how often it came before without being told."""

    fault: str
    text: str
    logger: str
    level: str
    role: str
    pid: int
    request_id: str
    exception: BaseException | None = None
    repeats: int = 0

    def lines(self, settings: Settings) -> str:
        """For people: what, how often, where to look."""
        more = f" ({self.repeats} more since it was last told)" if self.repeats else ""
        where = f"{settings.server_name} ({settings.env}), {self.role} {self.pid}"
        request = f", request {self.request_id}" if self.request_id else ""
        return f"{self.level.upper()} on {where}: {self.text}{more}{request}"
