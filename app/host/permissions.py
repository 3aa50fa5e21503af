"""What another user may read, enter and write, by the permission bits of files and folders. A leaf."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

READ, WRITE, ENTER = 0o4, 0o2, 0o1


@dataclass(frozen=True)
class Account:
    """A user of this machine, with the group that is first in the list of users."""

    name: str
    uid: int
    gid: int

    def may(self, what: int, path: Path) -> bool:
        """Whether the bits of one file or folder allow it: READ, WRITE, ENTER or a sum. Links are followed.

        Raises OSError where we may not look ourselves.
        """
        return self.uid == 0 or self.is_allowed(what, path.stat())

    def is_allowed(self, what: int, found: os.stat_result) -> bool:
        """The same of what was looked up already, for any user but root."""
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid == self.gid else 0
        return (found.st_mode >> shift) & what == what

    def first_closed(self, path: Path) -> Path | None:
        """The first folder on the way to ``path``, itself included, that it may not enter; None when it may."""
        for folder in reversed([path, *path.parents]):
            if not self.may(ENTER, folder):
                return folder
        return None


def account(name: str) -> Account:
    """The user of that name. Raises KeyError where there is none."""
    found = pwd.getpwnam(name)
    return Account(name, found.pw_uid, found.pw_gid)


def own_account() -> Account:
    """The user of this process, who may have no name."""
    return Account(_name(os.getuid()), os.getuid(), os.getgid())


def owner_of_process(pid: int) -> Account:
    """Who runs a process, and may have no name. Raises OSError where there is none."""
    found = Path(f"/proc/{pid}").stat()
    return Account(_name(found.st_uid), found.st_uid, found.st_gid)


def become_owner(path: Path) -> None:
    """As root, become the owner of a folder for the rest of this process; else, and where it is root's, do nothing.

    Its owner can put links into it, so what root writes there could go anywhere. Commands of an operator do this before
    they open a file of the service's.
    """
    if os.geteuid() != 0 or not path.is_dir():
        return
    # A link of somebody's is followed by nobody but that somebody.
    found = path.lstat() if path.lstat().st_uid else path.stat()
    if found.st_uid == 0:
        return
    name = _name(found.st_uid)
    if name.isdigit():
        os.setgroups([])
        os.setgid(found.st_gid)
    else:
        os.initgroups(name, found.st_gid)
        os.setgid(pwd.getpwnam(name).pw_gid)
    os.setuid(found.st_uid)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def deepest_existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(each for each in (path, *path.parents) if each.exists())
