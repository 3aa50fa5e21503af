"""`make plugin-test NAME=claims` runs this: `client` asks the app with this plugin, `photo` is a picture."""


def test_photograph_is_answered(client, photo):
    answer = client.post("/claims", data={"photo": photo})

    assert answer.status_code == 200
    assert answer.json["damage"]


def test_page_is_there(client):
    assert client.get("/claims/page").status_code == 200
