"""Where the tokens of this service are: the settings say it, here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

from app.auth.disk_rows import DiskRows
from app.auth.rows import TokenRows
from app.auth.tokens import TokenStore, TokenTable
from app.config import Settings


def store(settings: Settings) -> TokenStore:
    """The tokens as an operator changes them. Opens nothing yet."""
    if settings.state_store == "disk":
        return TokenStore(settings.state_dir)
    from app.auth.redis_rows import COMMAND_TIMEOUT_SECONDS, RedisRows

    return TokenStore(RedisRows(settings.redis_address, settings.redis_place, timeout_seconds=COMMAND_TIMEOUT_SECONDS))


def table(settings: Settings, note_unchecked: Callable[[str], None] = lambda outcome: None) -> TokenTable:
    """All tokens in RAM; ``note_unchecked`` as in ``TokenTable``. Opens nothing yet."""
    return TokenTable(_rows(settings), note_unchecked=note_unchecked)


def _rows(settings: Settings) -> TokenRows:
    if settings.state_store == "disk":
        return DiskRows(settings.state_dir, is_durable=False)
    from app.auth.redis_rows import RedisRows

    return RedisRows(settings.redis_address, settings.redis_place, grace_seconds=settings.state_store_grace_seconds)
