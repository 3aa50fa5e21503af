"""Which process watches which under Apache. See docs/architecture.md."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.config import Settings
from app.host import machine
from app.supervision import probe, pulse
from app.supervision.probe import Probe
from app.supervision.reload_requests import ReloadRequests
from app.supervision.supervisor import TELL_SECONDS, Supervisor, watch
from app.supervision.watchdog import Watchdog, WatchedEngine
from app.telemetry import post_mortem, shards
from app.telemetry.post_mortem import MemoryKills
from app.telemetry.shards import LOADING, Sign

if TYPE_CHECKING:
    from app.supervision.certificate_renewals import CertificateRenewals

WATCHED_BY_OPS = frozenset({"web", "engine", "jobs"})
WATCHED_BY_ENGINE = frozenset({"ops"})


@dataclass(frozen=True)
class Supervision:
    """What the ops process does for all others."""

    supervisor: Supervisor
    watchdog: Watchdog
    probe: Probe
    reload_requests: ReloadRequests
    memory_kills: MemoryKills
    stuck_seconds: Callable[[], float]
    certificates: CertificateRenewals | None = None
    """With HTTPS only."""

    def start(self) -> None:
        """Each in a thread of its own: none waits for what another one asks."""
        self.supervisor.start()
        self.watchdog.start()
        self.probe.start()
        self.reload_requests.start()
        watch(self.memory_kills.look, post_mortem.PERIOD_SECONDS, "memory-kills")
        if self.certificates is not None:
            self.certificates.start()

    def troubles(self) -> list[str]:
        """Why a prediction might not be answered now, in words."""
        troubles = [*self.supervisor.troubles(), *self.probe.troubles()]
        if (seconds := self.stuck_seconds()) >= TELL_SECONDS:
            troubles.append(f"ops: process {os.getpid()} has made no progress for {seconds:.1f} s")
        if machine.is_stopped(os.getppid()):
            troubles.append(f"httpd: the first process {os.getppid()} is stopped, so nobody replaces who ends")
        return troubles


def of_ops(settings: Settings, engine: WatchedEngine) -> Supervision:
    """Web processes, engine, jobs' worker and Apache's children, watched by ops."""
    state_dir, hang_seconds = Path(settings.state_dir), settings.engine_hang_seconds

    def note(pid: int) -> None:
        shards.note_hang(state_dir, pid)

    def read() -> list[Sign]:
        return [sign for sign in shards.signs(state_dir) if sign.role in WATCHED_BY_OPS]

    supervisor = Supervisor(read, hang_seconds, others=_children_of_apache, note=note)
    watchdog = Watchdog(
        engine,
        hang_seconds,
        pid=lambda: supervisor.pid("engine"),
        is_loading=lambda: any(sign.role == "engine" and sign.mood == LOADING for sign in read()),
        note=note,
    )
    host = probe.here(settings.listen_host)
    return Supervision(
        supervisor,
        watchdog,
        Probe(
            lambda: probe.ask(host, settings.port),
            lambda: sum(sign.answered for sign in read() if sign.role == "web"),
        ),
        ReloadRequests(state_dir / "run" / "httpd"),
        MemoryKills(state_dir),
        lambda: max((sign.stuck_seconds for sign in shards.signs(state_dir) if sign.pid == os.getpid()), default=0.0),
        _certificates(settings) if settings.tls_enabled else None,
    )


def _certificates(settings: Settings) -> CertificateRenewals:
    # With ssl, which the engine does without, and 3 MB.
    from app.supervision.certificate_renewals import CertificateRenewals

    return CertificateRenewals(settings)


class SilenceNote:
    """A file that lets Apache answer /readyz with 503 while ops cannot: see apache/conf/ops.conf.

    A link to what the kernel shows of this process while it lives: nobody else's silence outlives its witness.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / pulse.SILENCE
        self._path.unlink(missing_ok=True)
        self._is_there = False

    def tell(self, is_well: bool) -> None:
        """Make it, or take it away. Raises OSError."""
        if self._is_there and is_well:
            self._path.unlink(missing_ok=True)
        elif not self._is_there and not is_well:
            self._path.unlink(missing_ok=True)
            self._path.symlink_to(f"/proc/{os.getpid()}/stat")
        self._is_there = not is_well


def of_engine(settings: Settings) -> Supervisor:
    """The ops process, which watches all others and is watched by the engine."""
    state_dir = Path(settings.state_dir)
    return Supervisor(
        lambda: [sign for sign in shards.signs(state_dir) if sign.role in WATCHED_BY_ENGINE],
        settings.engine_hang_seconds,
        note=lambda pid: shards.note_hang(state_dir, pid),
        tell=SilenceNote(state_dir).tell,
    )


def _children_of_apache(known: Collection[int]) -> list[int]:
    """Apache's own, which serve all connections and give no signs; ourselves left out."""
    try:
        return [pid for pid in machine.children(os.getppid()) if pid not in known and pid != os.getpid()]
    except OSError:
        return []
