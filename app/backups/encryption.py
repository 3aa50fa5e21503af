"""Backups under a passphrase: a stream through `openssl enc`, which any machine has to open it by hand.

AES-256-CBC with a key from PBKDF2. The archive within holds the SHA-256 of all its files, so that changes are found.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from app.backups import archive
from app.errors import BackupError

# As OWASP recommends for PBKDF2 with SHA-256; a third of a second.
CIPHER = ("-aes-256-cbc", "-pbkdf2", "-iter", "600000", "-md", "sha256")
MARK = b"Salted__"
LEAST_CHARACTERS = 12
OTHERS = stat.S_IRWXG | stat.S_IRWXO
BY_HAND = f"openssl enc -d {' '.join(CIPHER)} -in FILE -out cask.tar"


def read_passphrase(path: Path) -> str:
    """The first line of a file that its owner alone may read. Raises BackupError, OSError."""
    if path.stat().st_mode & OTHERS:
        raise BackupError(f"The passphrase in {path} can be read by others.", hint=f"chmod 600 {path}")
    lines = path.read_text("utf-8").splitlines()
    return check(lines[0] if lines else "")


def check(passphrase: str) -> str:
    """The passphrase, where it is long enough. Raises BackupError."""
    if len(passphrase) < LEAST_CHARACTERS:
        raise BackupError(
            f"The passphrase has {len(passphrase)} characters; expected at least {LEAST_CHARACTERS}.",
            hint="Take a longer one, such as `openssl rand -base64 24` prints.",
        )
    return passphrase


def is_encrypted(source: io.BufferedReader) -> bool:
    """Whether what comes from there is under a passphrase. Takes nothing away."""
    return source.peek(len(MARK)).startswith(MARK)


@contextlib.contextmanager
def encrypting(target: IO[bytes], passphrase: str) -> Iterator[IO[bytes]]:
    """What is written there comes encrypted to the target. Raises BackupError."""
    target.flush()
    with _openssl("-e", passphrase, stdout=target.fileno()) as process:
        assert process.stdin is not None
        yield process.stdin


@contextlib.contextmanager
def decrypting(source: IO[bytes], passphrase: str) -> Iterator[IO[bytes]]:
    """What was encrypted, in clear. Raises BackupError where the passphrase does not open it."""
    with _openssl("-d", passphrase, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert isinstance(process.stdout, io.BufferedReader)
        pump = threading.Thread(target=_pump, args=(source, process.stdin), daemon=True)
        pump.start()
        if not process.stdout.peek(len(archive.ABOUT)).startswith(archive.ABOUT.encode()):
            process.kill()
            raise BackupError(
                "The passphrase does not open this backup, or its first bytes are damaged.",
                hint="Try the passphrase that it was made with; nothing was changed.",
            )
        yield process.stdout
        # What follows the end of an archive; unread, it would hold up openssl.
        while process.stdout.read(archive.CHUNK_BYTES):
            pass
        pump.join()


def _pump(source: IO[bytes], target: IO[bytes]) -> None:
    # The reader may stop before the end.
    with contextlib.suppress(OSError, ValueError), target:
        shutil.copyfileobj(source, target)


@contextlib.contextmanager
def _openssl(direction: str, passphrase: str, stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    """It reads the passphrase from a pipe: neither the list of processes nor the environment shows it."""
    reading, writing = os.pipe()
    os.write(writing, passphrase.encode() + b"\n")
    os.close(writing)
    command = ["openssl", "enc", direction, *CIPHER, "-salt", "-pass", f"fd:{reading}"]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE, pass_fds=(reading,)
        )
    except FileNotFoundError:
        raise BackupError("Encrypted backups need openssl, found none.", hint="apt-get install openssl") from None
    finally:
        os.close(reading)
    said, left = b"", None
    with contextlib.suppress(BrokenPipeError), process:
        try:
            yield process
        except Exception as error:
            left = None if isinstance(error, BrokenPipeError) else error
            raise
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.close()
        said = process.stderr.read()
    if left is not None:
        # To close its input failed, as it had ended; that must not hide why it was left.
        raise left
    if process.wait():
        raise BackupError(
            f"openssl ended with {process.returncode}: {said.decode(errors='replace').strip() or 'no reason'}.",
            hint="Is the disk full? If it was read: the backup is damaged or cut off.",
        )
