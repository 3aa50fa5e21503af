"""The collection in newman, Postman's own runner: with a token every request of it is answered but placeholders."""

from __future__ import annotations

import json
from pathlib import Path

from app.web.openapi import postman
from tests.clients import programs
from tests.servers import Server

# Each speaks of a job, which whoever imports the collection has to name.
PLACEHOLDERS = {
    "One job, with results": 404,
    "Cancel and remove a job": 404,
    "All results of a job, a line each": 404,
    "The results of a job, as before": 422,
    "The page of one job": 404,
    "The button that removes a job": 404,
}
# The models that come with Cask divide no image into classes, and give none a vector.
WITHOUT_A_MODEL = {
    "Call methods: Image.embed": 404,
    "Call methods: Image.segment": 404,
    **{
        f"{what}: {how}": 404
        for what in ("Divide images into classes", "Give images vectors")
        for how in ("application/octet-stream", "form", "image/jpeg", "one image")
    },
}
SIGN_IN = "Sign in with a token: form"


def test_only_placeholders_are_refused(guarded: Server, tmp_path: Path) -> None:
    newman = programs.node_folder() / "newman"
    collection, report = tmp_path / "collection.json", tmp_path / "report.json"
    collection.write_text(json.dumps(postman.collection(guarded.ask("/openapi.json").json, guarded.url)))
    # From a file of our own: the arguments of a program are for everybody to read.
    variables = tmp_path / "variables.json"
    variables.write_text(json.dumps({"values": [{"key": "token", "value": guarded.token, "enabled": True}]}))

    command = [newman, "run", collection, "--environment", variables, "--working-dir", ".", "--ignore-redirects"]
    done = programs.run([*command, "--reporters", "json", "--reporter-json-export", report])

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    rows = json.loads(report.read_text())["run"]["executions"]
    statuses = {row["item"]["name"]: row["response"]["code"] for row in rows}
    print(f"{len(rows)} requests, refused: {[name for name, status in statuses.items() if status >= 400]}")
    assert len(rows) >= 70
    assert {row["item"]["name"]: row["response"]["code"] for row in rows if row["response"]["code"] >= 400} == {
        **PLACEHOLDERS,
        **WITHOUT_A_MODEL,
    }
    assert statuses[SIGN_IN] == 303
