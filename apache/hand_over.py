"""Give up root before anything of the service is touched: ``python apache/hand_over.py USER PROGRAM [ARGUMENT…]``.

The state folder belongs to the service user, who can put links into it. So root does nothing there but what is done
here, by descriptors that follow no link: it makes the folder, gives it to the service user, and gives that user what
earlier commands of root have left in it. Then it becomes the service user for good and runs PROGRAM. A port below 1024
needs one capability, which stays; nothing else of root does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import stat
import struct
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app import config  # noqa: E402 - the line above makes it importable
from app.config import Settings  # noqa: E402
from app.errors import SettingsError  # noqa: E402
from app.host import permissions  # noqa: E402 - the line above makes it importable
from app.host.permissions import Account  # noqa: E402
from app.telemetry import logs  # noqa: E402

UNPRIVILEGED_PORTS = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
# What earlier starts and commands of root may have left in a state folder; nothing else there is given away.
OUR_FOLDERS = ("run", "cache", "jobs", "drift", "shadow", "built", "backups")
OUR_FILES = (".json", ".sqlite3", ".sqlite3-wal", ".sqlite3-shm", ".sqlite3-journal", ".sqlite3-ours")
# Of a path, links included; more are a circle.
MOST_PARTS = 100
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, to open a FIFO would wait for its other end.
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class HandOverError(Exception):
    """Why the service cannot be handed over, in one line for the operator."""


def main() -> int:
    """Become the service user and run the program. Returns 2, with one line on stderr, when that cannot be."""
    # Folders that are made on the way must be open to the service user, whatever the mask of our shell.
    os.umask(0o022)
    try:
        settings = config.load()
        account = _account(sys.argv[1])
        for path in _needed(settings):
            _check_entering(account, path)
        _check_reading(account)
        _check_code(account)
        _compile_code()
        give_state(settings.state_dir, account)
    except SettingsError as error:
        logs.tell_refusal(error.message)
        return 2
    except (HandOverError, OSError) as error:
        logs.tell_refusal(f"FAIL: {error}")
        return 2
    command = [*_setpriv(settings, account), *sys.argv[2:]]
    return os.execvp(command[0], command)  # noqa: S606 - that is what this program is for


def give_state(path: Path, account: Account) -> None:
    """Make the state folder where root alone may change the way to it; give it and root's files in it away.

    Raises HandOverError when it is somebody else's folder, and OSError.
    """
    folder = _open_trusted(path)
    if folder is None:
        # Others may change the way there, so root follows it nowhere: the service user makes its folder itself.
        return
    try:
        if os.fstat(folder).st_uid == 0:
            _check_own(folder, path)
            os.fchown(folder, account.uid, account.gid)
        if os.fstat(folder).st_uid == account.uid:
            for name in _names(folder):
                if name in OUR_FOLDERS or name.endswith(OUR_FILES):
                    _give(folder, name, account)
    finally:
        os.close(folder)


def _account(user: str) -> Account:
    try:
        account = permissions.account(user)
    except KeyError:
        raise HandOverError(
            f"SERVICE_USER is {user!r}, and there is no such user. Make one, or choose another."
        ) from None
    if account.uid == 0:
        raise HandOverError(f"SERVICE_USER is {user!r}, and Apache does not serve as root. Choose another user.")
    if shutil.which("setpriv") is None:
        raise HandOverError(
            "needs setpriv to give up root, found none: apt-get install util-linux, or start as a user."
        )
    return account


def _needed(settings: Settings) -> set[Path]:
    """Where the service user must be able to go: a Python or checkout below a private home would crash in a loop."""
    python = Path(sys.executable)
    state = permissions.deepest_existing(settings.state_dir)
    return {ROOT, python.parent, python.resolve().parent, Path(sys.base_prefix), state}


def _check_entering(account: Account, path: Path) -> None:
    closed = account.first_closed(path)
    if closed:
        raise HandOverError(
            f"the user {account.name} may not enter {closed}, which is on the way to {path}. Put it elsewhere,"
            f" allow it with `chmod o+x {closed}`, or set SERVICE_USER."
        )


def _check_reading(account: Account) -> None:
    """A checkout or .venv made with a strict umask would crash in a loop. The first closed file is enough to say so."""
    packages = Path(sysconfig.get_path("purelib"))
    folders = map(_below, (ROOT / name for name in ("app", "apache", "cask", "env", "models")))
    single = ((str(path), path.stat()) for path in (ROOT / "flask.wsgi", packages))
    with os.scandir(packages) as entries:
        beside = [(entry.path, entry.stat()) for entry in entries]
    for path, found in itertools.chain(single, *folders, beside):
        needed = permissions.READ | (permissions.ENTER if stat.S_ISDIR(found.st_mode) else 0)
        if not account.is_allowed(needed, found):
            top = ROOT if Path(path).is_relative_to(ROOT) else packages
            raise HandOverError(
                f"the user {account.name}, who serves, may not read {path}. Open the folder: chmod -R go+rX {top}"
            )


def _below(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """All that lies below a folder; nothing where there is none. Folders behind links are not looked into."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as listed:
        entries = list(listed)
    for entry in entries:
        # Python leaves compiled files that it may not read, such as those that root made under a strict umask.
        if entry.name == "__pycache__":
            continue
        yield entry.path, entry.stat()
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path))


def _check_code(account: Account) -> None:
    """Root runs this code, so who serves must not be able to change it."""
    for path in (ROOT, ROOT / "apache", ROOT / "app", Path(sys.executable).parent):
        if account.may(permissions.WRITE, path) or path.stat().st_uid == account.uid:
            raise HandOverError(
                f"the user {account.name}, who serves, may write {path}, and root would run what lies there."
                f" Start it as that user, or give it to another: chown -R root {path}"
            )


def _compile_code() -> None:
    """Write the compiled files of our code, for the service user cannot: each process would compile 200 modules anew.

    Only where the code is root's: in somebody else's checkout they would lie about as root's.
    """
    if _owner(ROOT / "app") == 0 and not sys.dont_write_bytecode:
        # What is up to date is left as it is; what cannot be written is compiled at each start, as before.
        for folder in (ROOT / name for name in ("app", "cask")):
            if not all(_is_compiled(*each) for each in _below(folder) if each[0].endswith(".py")):
                import compileall

                compileall.compile_dir(folder, quiet=2)


def _is_compiled(path: str, found: os.stat_result) -> bool:
    """Whether Python will take the compiled file as it is: by time and size of its source (PEP 3147, PEP 552)."""
    of_source = struct.pack("<LLL", 0, int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF)
    try:
        with open(importlib.util.cache_from_source(path), "rb", buffering=0) as file:  # noqa: PTH123 - 400 of them
            return file.read(16) == importlib.util.MAGIC_NUMBER + of_source
    except OSError:
        return False


def _owner(path: Path) -> int:
    return path.stat().st_uid


def _open_trusted(path: Path) -> int | None:
    """A descriptor of a folder, made where it is missing; None when others may change the way to it."""
    waiting, links = list(reversed(path.parts[1:])), 0
    descriptor = os.open("/", OPEN_FOLDER)
    while waiting and _is_trusted(os.fstat(descriptor)):
        part, links = waiting.pop(), links + 1
        if (target := _link(descriptor, part)) is None:
            below = _make(descriptor, part)
        elif _is_own(os.lstat(part, dir_fd=descriptor)) and links < MOST_PARTS:
            waiting += reversed(Path(target).parts)
            below = os.dup(descriptor)
            if Path(target).is_absolute():
                waiting.pop()
                below = _replaced(below, os.open("/", OPEN_FOLDER))
        else:
            waiting.append(part)
            break
        descriptor = _replaced(descriptor, below)
    if not waiting:
        return descriptor
    os.close(descriptor)
    return None


def _replaced(old: int, new: int) -> int:
    os.close(old)
    return new


def _link(folder: int, name: str) -> str | None:
    """Where a link points; None for what is none."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return None


def _is_trusted(found: os.stat_result) -> bool:
    """Whether only root, and who owns the code that root runs here, may change what lies in a folder.

    A sticky one lets others change only what is theirs.
    """
    may_others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    return _is_own(found) and not may_others_write


def _is_own(found: os.stat_result) -> bool:
    return found.st_uid in (0, ROOT.stat().st_uid)


def _make(parent: int, name: str) -> int:
    """A descriptor of a folder there, made where it is missing. Raises OSError for a link."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
    return os.open(name, OPEN_FOLDER, dir_fd=parent)


def _check_own(folder: int, path: Path) -> None:
    """A folder of root's is given away only when nothing else lives there."""
    others = [each.name for each in _folders(folder) if each.name not in OUR_FOLDERS]
    if others:
        raise HandOverError(
            f"STATE_DIR is {path}, which belongs to root and holds {others[0]}/, which is not the service's."
            " Choose an empty folder."
        )


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _folders(folder: int) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry


def _give(parent: int, name: str, account: Account) -> None:
    """Give a file or a whole folder of root's to the service user; links, and files with a second name, stay."""
    try:
        descriptor = os.open(name, OPEN_FILE, dir_fd=parent)
    except OSError:
        # A link, a socket, or gone: nothing that an earlier start of ours would have left.
        return
    try:
        found = os.fstat(descriptor)
        is_folder = stat.S_ISDIR(found.st_mode)
        if is_folder:
            for below in _names(descriptor):
                _give(descriptor, below, account)
        if found.st_uid == 0 and (is_folder or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)):
            os.fchown(descriptor, account.uid, account.gid)
    finally:
        os.close(descriptor)


def _setpriv(settings: Settings, account: Account) -> list[str]:
    """The start of a command that runs as the service user, with its groups, and never gets more rights again."""
    command = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--init-groups", "--no-new-privs"]
    ports = [settings.port, *([settings.https_port] if settings.tls_enabled else [])]
    if min(ports) < _first_unprivileged_port():
        command += ["--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"]
    return [*command, "--"]


def _first_unprivileged_port() -> int:
    try:
        return int(UNPRIVILEGED_PORTS.read_text())
    except (OSError, ValueError):
        return 1024


if __name__ == "__main__":
    sys.exit(main())
