"""Flask without any model: what a route costs that does nothing, under gunicorn and under nginx with uWSGI."""

from flask import Flask, Response, jsonify

app = Flask(__name__, static_folder="../../app/static")


@app.get("/hello")
def hello() -> Response:
    """The least a view can do."""
    return jsonify(status="ok")
