"""Somebody sends a photograph: `make loadtest PROFILE=smoke MIX=claims`, or MIX="claims:1 classify:3" with others."""

from pathlib import Path

PHOTOS = [path.read_bytes() for path in sorted(Path("models/samples").glob("*.jpg"))]


def request(turn):
    return {"path": "/claims", "files": {"photo": ("photo.jpg", turn.chance.choice(PHOTOS), "image/jpeg")}}


def check(answer):
    assert isinstance(answer.json()["damage"], list)
