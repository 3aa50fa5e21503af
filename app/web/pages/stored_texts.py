"""Words that were written to the disk before anybody asked in a language: of builds, and of the demonstration.

A report of a build may lie with a model that somebody else has built, so its verdicts are English sentences and no ids:
they are recognised by their pattern. Failures are not told like this: they carry their ids, see ``app/texts.py``.
"""

from __future__ import annotations

import re
from functools import cache

from app.texts import Text, gettext_noop

PLACEHOLDER = re.compile(r"%\((\w+)\)s")

OF_BUILDS = (
    gettext_noop("slower than %(name)s"),
    gettext_noop("agrees in %(found)s%%, at least %(least)s%% is needed"),
    gettext_noop("loses %(found)s points of mAP, at most %(most)s are allowed"),
    gettext_noop("failed: %(reason)s"),
    gettext_noop("left out: %(reason)s"),
    gettext_noop("it computes on the processor, and this build is for %(device)s"),
    gettext_noop("it lists boxes inside the network, which no other form takes"),
    gettext_noop("its pictures keep their shape (input.kind is fit), and a built file knows one shape"),
    gettext_noop("at least %(least)s samples must show its agreement; there are %(count)s"),
    gettext_noop("%(library)s is not installed"),
    gettext_noop("there is no C++ compiler (%(name)s) here"),
    gettext_noop("%(least)s samples are needed, to learn its ranges from one half and compare with the other"),
)

# The demonstration's own words.
OF_THE_STORE = (
    gettext_noop("Names a barrier, cone, helmet, sign or vest. A demonstration, trained on rendered scenes only."),
    gettext_noop("Finds barriers, cones, helmets, signs and vests. A demonstration, trained on rendered scenes only."),
    gettext_noop("Site morning"),
    gettext_noop("Site corner"),
    gettext_noop("Site wide"),
    gettext_noop("Cone"),
    gettext_noop("Helmet"),
    gettext_noop("Vest"),
)


def text(words: str) -> Text:
    """The text that these words were; other words become a text without values."""
    for pattern, sentence in _patterns():
        if found := pattern.fullmatch(words):
            return Text(sentence, **{name: text(value) for name, value in found.groupdict().items()})
    return Text(words)


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    # The one with the most words of its own first: a value may hold anything.
    with_values = [build for build in OF_BUILDS if PLACEHOLDER.search(build)]
    with_values.sort(key=lambda each: -len(PLACEHOLDER.sub("", each)))
    return [(_recognise(each), each) for each in with_values]


def _recognise(sentence: str) -> re.Pattern[str]:
    parts = PLACEHOLDER.split(sentence)
    parts[::2] = [re.escape(words.replace("%%", "%")) for words in parts[::2]]
    parts[1::2] = [f"(?P<{name}>.+?)" for name in parts[1::2]]
    return re.compile("".join(parts), re.DOTALL)
