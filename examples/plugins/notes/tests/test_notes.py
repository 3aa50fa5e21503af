"""`make plugin-test NAME=notes` runs this: `client` asks the app with this plugin."""


def test_note_is_kept_and_shown(client):
    kept = client.post("/notes", data={"text": "The camera <in> hall 3 is new."})

    assert (kept.status_code, kept.headers["Location"]) == (303, "/notes")
    assert "The camera &lt;in&gt; hall 3 is new." in client.get("/notes").text


def test_empty_and_long_notes_are_refused(client):
    assert [client.post("/notes", data={"text": text}).status_code for text in ("", " ", "x" * 501)] == [422] * 3


def test_page_is_german_for_whoever_reads_german(client):
    assert "Was sollen andere wissen?" in client.get("/notes", headers={"Accept-Language": "de"}).text
