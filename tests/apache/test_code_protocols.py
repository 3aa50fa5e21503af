"""Models with code by the Open Inference Protocol (Triton's own client), and by JSON-RPC, under Apache."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient import http
from tritonclient.utils import InferenceServerException

from tests import servers
from tests.code_examples import FACTS
from tests.servers import Answer, Server


@pytest.fixture
def server(coded: Server) -> Server:
    return coded


@pytest.fixture
def client(server: Server) -> Iterator[http.InferenceServerClient]:
    with http.InferenceServerClient(f"127.0.0.1:{server.port}") as found:
        yield found


def tensor(name: str, values: Any, datatype: str, *, is_binary: bool = True) -> http.InferInput:
    array = np.array(values)
    found = http.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array, binary_data=is_binary)
    return found


def texts(name: str, *values: str | bytes, is_binary: bool = True) -> http.InferInput:
    found = http.InferInput(name, [len(values)], "BYTES")
    if not is_binary:
        # The client sends bytes that are no text in binary tensors only.
        values = tuple(base64.b64encode(each).decode() if isinstance(each, bytes) else each for each in values)
    found.set_data_from_numpy(np.array(values, np.object_), binary_data=is_binary)
    return found


def infer(server: Server, name: str, document: Any) -> Answer:
    return server.ask(f"/v2/models/{name}/infer", json.dumps(document).encode(), {"Content-Type": "application/json"})


def one(name: str, datatype: str, shape: list[int], data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data, **more}


def test_what_a_model_takes_and_gives_is_told(client: http.InferenceServerClient) -> None:
    tickets = client.get_model_metadata("tickets", "1")
    brightness = client.get_model_config("brightness")
    kinds = client.get_model_metadata("kinds")

    assert client.is_model_ready("tickets")
    assert {"tickets", "brightness", "kinds"} <= {row["name"] for row in client.get_model_repository_index()}
    assert tickets["inputs"] == [
        {"name": "text", "datatype": "BYTES", "shape": [-1], "parameters": {"content_type": "str"}}
    ]
    assert [(row["name"], row["datatype"], row["shape"]) for row in tickets["outputs"]] == [
        ("label", "BYTES", [-1, -1]),
        ("score", "FP64", [-1, -1]),
        ("counts", "INT32", [-1]),
    ]
    assert [row["name"] for row in brightness["output"]] == ["png", "areas"]
    found = {row["name"]: (row["datatype"], row["shape"], row.get("parameters")) for row in kinds["inputs"]}
    assert found == {
        "part": ("BYTES", [-1], {"content_type": "json"}),
        "number": ("FP64", [-1], None),
        "is_whole": ("BOOL", [-1], None),
        "colour": ("BYTES", [-1], {"content_type": "str"}),
        "matrix": ("FP32", [-1, -1, 2], None),
        "file": ("BYTES", [-1], {"content_type": "base64"}),
        "words": ("BYTES", [-1], {"content_type": "json"}),
        "picture": ("BYTES", [-1], {"content_type": "base64", "optional": True}),
        "limit": ("INT64", [-1], {"optional": True}),
    }


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
def test_a_batch_of_texts_is_answered_in_its_order(client: http.InferenceServerClient, is_binary: bool) -> None:
    asked = [texts("text", "My parcel is late", "refund refund", is_binary=is_binary)]
    wanted = [http.InferRequestedOutput(name, binary_data=is_binary) for name in ("label", "counts")]

    found = client.infer("tickets", asked, outputs=wanted, request_id="7", parameters={"top": 2, "priority_class": "a"})

    labels = [[_text(each) for each in row] for row in found.as_numpy("label")]
    assert [row[0] for row in labels] == ["shipping", "returns"]
    assert found.as_numpy("counts").tolist() == [2, 2]
    assert found.as_numpy("score") is None
    assert found.get_response()["id"] == "7"


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
def test_a_picture_becomes_a_mask(client: http.InferenceServerClient, server: Server, is_binary: bool) -> None:
    photo = (servers.ROOT / "models" / "samples" / "cone.jpg").read_bytes()
    document = {"photo": base64.b64encode(photo).decode(), "threshold": 0.3}
    path = "/v1/models/brightness/predict"
    expected = server.ask(path, json.dumps(document).encode(), {"Content-Type": "application/json"})

    wanted = [http.InferRequestedOutput(name, binary_data=is_binary) for name in ("png", "areas")]
    asked = [texts("photo", photo, photo, is_binary=is_binary)]
    found = client.infer("brightness", asked, outputs=wanted, parameters={"threshold": 0.3})

    png, areas = found.as_numpy("png")[1], found.as_numpy("areas")[1]
    result = expected.json["results"][0]
    assert (png if is_binary else base64.b64decode(png)) == base64.b64decode(result["png"])
    assert json.loads(areas) == result["areas"]


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
def test_every_kind_of_value_goes_in_and_out(client: http.InferenceServerClient, is_binary: bool) -> None:
    matrix = np.array([FACTS["matrix"], [[0, 0], [1, 1]]], np.float32)
    asked = [
        texts("part", json.dumps(FACTS["part"]), json.dumps({**FACTS["part"], "name": "nut"}), is_binary=is_binary),
        tensor("number", [0.5, -0.5], "FP64", is_binary=is_binary),
        tensor("is_whole", [True, False], "BOOL", is_binary=is_binary),
        texts("colour", "blue", "red", is_binary=is_binary),
        tensor("matrix", matrix, "FP32", is_binary=is_binary),
        texts("file", b"ABC", b"\xff", is_binary=is_binary),
        texts("words", '["a", "b"]', "[]", is_binary=is_binary),
        tensor("limit", np.array([[3], [4]], np.int64), "INT64", is_binary=is_binary),
    ]

    found = client.infer("kinds", asked, parameters={"scale": 2, "is_loud": True})

    assert [_text(each) for each in found.as_numpy("name")] == ["BOLT", "NUT"]
    assert found.as_numpy("total").tolist() == [6, 7]
    assert found.as_numpy("share").tolist() == [1.0, -1.0]
    assert found.as_numpy("is_whole").tolist() == [True, False]
    assert found.as_numpy("mean").dtype == np.float32
    assert found.as_numpy("mean").tolist() == [[2.0, 4.0], [0.5, 0.5]]
    assert [json.loads(each) for each in found.as_numpy("notes")] == [["a", "b"], []]


def _text(element: bytes | str) -> str:
    return element.decode() if isinstance(element, bytes) else element


TEXT = one("text", "BYTES", [1], ["parcel"])


@pytest.mark.parametrize(
    ("document", "status", "said"),
    [
        ({"inputs": [one("texts", "BYTES", [1], ["a"])]}, 400, "There is no input 'texts'"),
        ({"inputs": [TEXT, TEXT]}, 400, "There is no input 'text', or it is there twice"),
        ({"inputs": [one("text", "FP32", [1], [1.0])]}, 400, "text is of 'FP32'"),
        ({"inputs": [one("text", "BYTES", [2], ["a"])]}, 400, "text has 1 elements; its shape [2] says 2"),
        ({"inputs": [one("text", "BYTES", [1, 2], ["a", "b"])]}, 400, "text has the shape [1, 2]"),
        ({"inputs": [one("text", "BYTES", [0], [])]}, 422, "The request holds no item."),
        ({"inputs": [one("text", "BYTES", [2**31], [])]}, 413, "The request holds 2147483648"),
        ({"inputs": [one("text", "BYTES", [1], [7])]}, 422, "text is 7."),
        ({"inputs": [one("text", "BYTES", [1], [None])]}, 422, "text is None."),
        ({"inputs": [one("text", "BYTES", [1], [" "])]}, 422, "the text is empty"),
        ({"inputs": [TEXT], "parameters": {"top": 9}}, 422, "top is 9."),
        ({"inputs": [TEXT], "parameters": {"top": "2"}}, 422, "top is '2'."),
        ({"inputs": [TEXT], "outputs": [{"name": "labels"}]}, 400, "There is no output 'labels'."),
        ({"inputs": [{**TEXT, "parameters": {"shared_memory_region": "a"}}]}, 400, "text lies in shared memory"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_words(server: Server, document: Any, status: int, said: str) -> None:
    answer = infer(server, "tickets", document)

    assert (answer.status, answer.json["error"][: len(said)]) == (status, said)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (one("matrix", "FP32", [1, 2**31, 0], []), "matrix has the shape [1, 2147483648, 0]"),
        (one("matrix", "FP32", [1, 1, 3], [1, 2, 3]), "matrix has the shape [1, 1, 3]"),
        (one("matrix", "FP32", [1, 1, 2], [1]), "matrix has 1 elements"),
        (one("matrix", "FP32", [1, 1, 2], [1, "a"]), "matrix[0][1] is 'a'"),
        (one("matrix", "FP32", [1, 1, 2], [1, {}]), "matrix holds something else than numbers"),
        (one("number", "FP64", [2], [1, 1]), "The inputs have 1 and 2 items"),
        (one("number", "INT8", [1], [2]), "number is 2."),
        (one("part", "BYTES", [1], ["{"]), "The body is not JSON"),
        (one("part", "BYTES", [1], ['{"name": "a"}']), "part.count is missing"),
        (one("file", "BYTES", [1], ["*"]), "An element of file is not base64 text"),
        (one("colour", "BYTES", [1], ["green"]), "colour is 'green'"),
    ],
)  # fmt: skip
def test_a_wrong_value_of_any_kind_is_refused(server: Server, changed: dict[str, Any], said: str) -> None:
    given = {
        "part": one("part", "BYTES", [1], [FACTS["part"]]),
        "number": one("number", "FP32", [1], [0.5]),
        "is_whole": one("is_whole", "BOOL", [1], [True]),
        "colour": one("colour", "BYTES", [1], ["red"]),
        "matrix": one("matrix", "FP32", [1, 1, 2], [[[1, 2]]]),
        "file": one("file", "BYTES", [1], ["QUJD"]),
        "words": one("words", "BYTES", [1], ["[]"]),
    }

    right = infer(server, "kinds", {"inputs": list(given.values())})
    wrong = infer(server, "kinds", {"inputs": list({**given, changed["name"]: changed}.values())})

    assert right.status == 200, right.body
    assert wrong.status in (400, 422)
    assert wrong.json["error"].startswith(said)


def test_a_refusal_reaches_the_client_in_words(client: http.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="the text is empty"):
        client.infer("tickets", [texts("text", "refund", " ")])
    with pytest.raises(InferenceServerException, match="photo: "):
        client.infer("brightness", [texts("photo", b"junk")])


# ── JSON-RPC ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def call(server: Server, *calls: Any) -> Answer:
    document = [{"jsonrpc": "2.0", "method": "Model.predict", "params": each, "id": n} for n, each in enumerate(calls)]
    kind = {"Content-Type": "application/json"}
    return server.ask("/api", json.dumps(document if len(document) > 1 else document[0]).encode(), kind)


def test_json_rpc_asks_a_model_with_code_as_its_own_address_does(server: Server) -> None:
    items = [{"text": "refund refund"}, {"text": "My parcel is late"}]

    one = call(server, {"model": "tickets", "version": "1", "text": "My parcel is late", "top": 2})
    replies = call(
        server,
        {"model": "tickets", "items": items},
        ["tickets", items],
        {"model": "kinds", **FACTS, "is_loud": True},
        {"model": "tickets", "text": " "},
        {"model": "nobody", "text": "a"},
        {"text": "a"},
        {"model": "tickets", "text": "a", "topp": 2},
    ).json

    assert one.json["result"]["results"] == [
        [{"label": "shipping", "score": 0.5}, {"label": "billing", "score": 0.0}]
    ], one.body
    assert one.json["result"]["model"]["name"] == "tickets"
    assert [each[0]["label"] for each in replies[0]["result"]["results"]] == ["returns", "shipping"]
    assert replies[0]["result"] == replies[1]["result"]
    assert replies[2]["result"]["results"][0]["name"] == "BOLT"
    failures = [(each["error"]["data"]["code"], each["error"]["message"]) for each in replies[3:]]
    assert failures == [
        ("input_refused", "the text is empty"),
        ("model_not_found", failures[1][1]),
        ("option_invalid", "model is 'None'."),
        ("option_invalid", "'topp' is unknown."),
    ]


def test_descriptions_hold_a_call_that_is_answered(server: Server) -> None:
    paths = server.ask("/openapi.json").json["paths"]

    def examples(path: str) -> dict[str, Any]:
        content = paths[path]["post"]["requestBody"]["content"]["application/json"]
        return {name: row["value"] for name, row in content["examples"].items()}

    asked = [("/api", examples("/api")["Model.predict"])]
    asked += [
        (path, examples(path)["an example"])
        for path in paths
        if path.startswith("/v1/models/") and path.endswith("/predict")
    ]
    kind = {"Content-Type": "application/json"}
    answers = {path: server.ask(path, json.dumps(body).encode(), kind) for path, body in asked}

    assert len(answers) == 4
    assert {path: answer.body for path, answer in answers.items() if answer.status != 200} == {}
    assert b"Model.predict" in server.ask("/api").body


def test_answers_are_counted(server: Server, client: http.InferenceServerClient) -> None:
    def count() -> int:
        (row,) = server.ask("/v2/models/tickets/stats").json["model_stats"]
        assert row["inference_stats"]["success"]["count"] == row["inference_count"]
        return int(row["inference_count"])

    before, many = count(), 30
    client.infer("tickets", [texts("text", *["late parcel"] * many)])

    # What the tests above asked, fewer, may not be in the first count yet: it is a second old at most.
    servers.wait_until(lambda: count() >= before + many, 30.0, "the count")
    assert count() < before + 2 * many
    # Nothing says what of its values would be comparable.
    assert 'cask_drift_mean{model="tickets"' not in server.ask("/metrics").body.decode()


def test_page_takes_one_file_for_a_parameter_as_the_api_does(server: Server) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\nx\r\n'
    body, kind = part + part + b"--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}

    page, api = server.ask("/models/brightness", body, kind), server.ask("/v1/models/brightness/predict", body, kind)

    assert (page.status, api.status) == (400, 400)
    assert b"stands 2 times in the form" in page.body
