"""A load scenario: `make plugin-load NAME=claims` sends it; PROFILE, RATE and SECONDS as for `make loadtest`."""

import random
from pathlib import Path

from locust import HttpUser, task

PHOTOS = [path.read_bytes() for path in sorted(Path("models/samples").glob("*.jpg"))]


class Caller(HttpUser):
    """Somebody who sends one photograph."""

    @task
    def claim(self):
        self.client.post("/claims", files={"photo": ("photo.jpg", random.choice(PHOTOS))})  # noqa: S311
