"""Takes secrets out of text: those that are known by value, in whatever coding, and what has the form of one.

Rather too much than too little: what is taken out says of which kind it was, and nobody needs it to find a fault.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote, urlsplit

LEAST_CHARACTERS = 6
# Parts of a URL are looked for by themselves; shorter ones are words of any text.
LEAST_PART = 5
MARK = "[{kind}]"
# Without what may stand before it in a name: a pattern that began with that would try each letter of a long word.
WORD = (
    r"(?:passw(?:or)?d|passphrase|passwd|pwd|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credential"
    r"|authtok|dsn|signature|session|salt|[_.-]pass|_auth|jwt)[\w.-]{0,80}"
)
NAME = r"[\w.-]{0,80}" + WORD
# What our own commands say about a secret without saying it.
HARMLESS = r"(?!not set|\d+ characters|the one for|\[|\*\*\*)"
QUOTE = r"\\*[\"']"
FORMS: tuple[tuple[str, str, str], ...] = (
    # Kind, pattern, what stays. A key that is cut off, or written on one line with \n, is one too.
    (
        "private key",
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:(?:(?!-----BEGIN).)*?-----END [A-Z0-9 ]*PRIVATE KEY-----"
        r"|(?:[ \t]*(?:\\n|\r?\n)?(?:[A-Za-z0-9+/]{16,}=*|[A-Za-z0-9+/]+=+|[A-Za-z-]+: [^\n\\]+))*)",
        "",
    ),
    ("cookie", r"((?:set-)?cookie" + QUOTE + r"?\s*[:=]\s*)[^\r\n]+", r"\1"),
    ("authorization", r"(authorization" + QUOTE + r"?\s*[:=]\s*" + QUOTE + r"?digest\s)[^\r\n]+", r"\1"),
    ("authorization", r"(authorization" + QUOTE + r"?\s*[:=]\s*)[^\r\n,}]+", r"\1"),
    ("authorization", r"\b((?:bearer|basic|digest|negotiate)\s+)[A-Za-z0-9._~+/=-]{6,}", r"\1"),
    ("credentials in a URL", r"\b([a-z][a-z0-9+.-]{0,20}://)[^\s\"'<>]*@", r"\1"),
    # The address alone is enough to call a hook.
    ("address of a hook", r"\b(https?://(?:hooks\.[^\s\"'<>/]+|[^\s\"'<>/]+/api/webhooks)/)[^\s\"'<>]+", r"\1"),
    # A proxy without a scheme; what curl and others take as user:password.
    ("credentials", r"(\b\w*proxy" + QUOTE + r"?\s*[:=]\s*" + QUOTE + r"?)[^\s\"'@/]+:[^\s\"'@]+@", r"\1"),
    ("credentials", r"(\s(?:--[\w-]*user|-[uU])(?:[ =]\s*)?" + QUOTE + r"?[^\s\"':/]+:)[^\s\"']+", r"\1"),
    # Arguments of programs that take a secret without saying so.
    ("argument", r"(\b(?:sshpass\s+-p|redis-cli\b[^\r\n]*?\s-a|openssl\b[^\r\n]*?\s-k)\s*)\S+", r"\1"),
    ("argument", r"(\b(?:mysql|mariadb)[\w-]*\b[^\r\n]*?\s-p)\S+", r"\1"),
    ("argument", r"(\bpass:)\S+", r"\1"),
    ("query", r"(\?)[^\s\"'<>?]*=[^\s\"'<>]*", r"\1"),
    # "password": "x", \"apiKey\":\"x\", 'secret': 'x', password="a b".
    ("value", rf"({WORD}{QUOTE}?\s*(?:[:=]|=>)[ \t]*{QUOTE}){HARMLESS}[^\"'\\\r\n]+", r"\1"),
    # A block of YAML.
    (
        "value",
        rf"(^([ \t]*)(?:- )?{NAME}:[ \t]*[|>][-+0-9]*[ \t]*\r?\n)\2[ \t]+[^\r\n]*(?:\r?\n\2[ \t]+[^\r\n]*)*",
        r"\1",
    ),
    # A line of a file of settings, commented out or not: to its end, for values may hold blanks.
    ("value", rf"(^[ \t#;]*(?:export\s+)?{NAME}\s*[:=][ \t]*){HARMLESS}[^\s\"'].*$", r"\1"),
    ("value", r"(\bpass(?:word|phrase|wd)\s+)(?=\S*\d)\S+", r"\1"),
    ("value", rf"(\b(?:setenv|define)\s+{NAME}\s+){HARMLESS}\S+", r"\1"),
    ("value", rf"(--{NAME}[ =]){HARMLESS}[^\s]+", r"\1"),
    ("value", rf"({WORD}\s*(?:[:=]|\bis\b)[ \t]*){HARMLESS}[^\s\"'&;,)\]}}]+", r"\1"),
    ("password hash", r"\$(?:2[aby]|apr1|[156y]|argon2\w*)\$[^\s\"':]+", ""),
    (
        "token",
        r"\b(?:cask_(?=[A-Za-z_-]*\d)|gh[pousr]_|glpat-|xox[abeprs]-|sk[-_](?:live_|test_)?|AKIA|ASIA)[A-Za-z0-9_-]{8,}",
        "",
    ),
    ("token", r"\beyJ[\w-]{6,}\.[\w-]+(?:\.[\w-]*)?", ""),
)
# A long word with letters and digits might be one; the SHA-256 of a file says that it is none.
LONG_WORD = re.compile(r"(?<![\w+=-])(?<!sha256:)(?=[\w+=-]*\d)(?=[\w+=-]*[A-Za-z])[A-Za-z0-9+_=-]{32,}")


class Redactor:
    """Takes out the secrets whose values it was told, and what looks like one; counts by kind."""

    def __init__(self, values: Iterable[tuple[str, str]] = ()) -> None:
        """``values``: kind and value of what must not be in any text."""
        self.counts: Counter[str] = Counter()
        self._known: dict[str, str] = {}
        for kind, value in values:
            for spelling in _spellings(value):
                self._known.setdefault(spelling, kind)
        # The longest first: one may be part of another.
        found = sorted(self._known, key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, found))) if found else None
        self._forms = [
            (kind, re.compile(form, re.I | re.M | re.S if "KEY-----" in form else re.I | re.M), stays)
            for kind, form, stays in FORMS
        ]

    def clean(self, text: str) -> str:
        """The text without them."""
        if self._values is not None:
            text = self._values.sub(lambda found: self._mark(self._known[found[0]]), text)
        for kind, form, stays in self._forms:
            text = form.sub(functools.partial(self._replace, kind, stays), text)
        return LONG_WORD.sub(lambda _: self._mark("long word"), text)

    def is_clean(self, text: str) -> bool:
        """Whether none of the known values stands in the text."""
        return self._values is None or self._values.search(text) is None

    def _replace(self, kind: str, stays: str, found: re.Match[str]) -> str:
        return found.expand(stays) + self._mark(kind)

    def _mark(self, kind: str) -> str:
        self.counts[kind] += 1
        return MARK.format(kind=kind)


def _spellings(value: str) -> Iterator[str]:
    """A secret, its lines, the parts of a URL, each as it is, escaped, quoted, in hexadecimal, and in base64."""
    value = value.strip()
    parts = [value, *(line.strip() for line in value.splitlines())]
    if "://" in value:
        parts += _parts_of_url(value)
    for part in dict.fromkeys(parts):
        if len(part) >= (LEAST_PART if part != value else LEAST_CHARACTERS):
            yield from (
                part,
                json.dumps(part)[1:-1],
                quote(part, safe=""),
                quote(part),
                unquote(part),
                repr(part)[1:-1],
            )
            yield part.encode().hex()
            yield from _in_base64(part.encode())


def _parts_of_url(url: str) -> list[str]:
    """What identifies somebody: user, password, path (of a webhook), query."""
    try:
        found = urlsplit(url)
        return [unquote(each) for each in (found.password, found.username, found.query) if each] + [
            part for part in found.path.split("/") if len(part) >= LEAST_CHARACTERS
        ]
    except ValueError:
        return []


def _in_base64(data: bytes) -> Iterator[str]:
    """At each of the three places where it may begin within something longer, without the letters that it shares."""
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(bytes(before) + data).decode()
            end = len(whole.rstrip("=")) - (1 if (before + len(data)) % 3 else 0)
            inner = whole[(0, 2, 3)[before] : end]
            if len(inner) >= LEAST_CHARACTERS:
                yield inner
