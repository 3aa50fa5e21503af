"""Flask as PyTorch's and Flask's documentation show it: the model at the top of the module, one request at a time."""

from flask import Flask, Response, jsonify, request

from bench.peers import network

app = Flask(__name__)
prepare, predict = network.load()


@app.get("/hello")
def hello() -> Response:
    """A route without a model."""
    return jsonify(status="ok")


@app.post("/predict")
def classify() -> Response:
    """Name what is in one image."""
    return jsonify(label=predict([prepare(request.get_data())])[0])
