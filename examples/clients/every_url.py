"""Every URL of the API once, from Python, with retries. `CASK_URL` is the service, `CASK_TOKEN` your token."""

import base64
import os
import time
from pathlib import Path

import requests

SERVICE = os.environ.get("CASK_URL", "http://localhost:8000")
TOKEN = {"X-Api-Token": os.environ.get("CASK_TOKEN", "")}
ATTEMPTS = 5
PATIENCE_SECONDS = 10


def ask(method, path, headers=None, **how):
    """The answer; sent again where that helps. Raises requests.HTTPError."""
    headers = {**TOKEN, **(headers or {})}
    for attempt in range(ATTEMPTS):
        answer = requests.request(method, SERVICE + path, headers=headers, timeout=PATIENCE_SECONDS, **how)
        if answer.status_code not in (429, 502, 503, 504) or attempt == ATTEMPTS - 1:
            break
        # Where nothing is said, twice as long each time.
        time.sleep(float(answer.headers.get("Retry-After", 2**attempt)))
    answer.raise_for_status()
    return answer


def read(name):
    return Path("models/samples", name).read_bytes()


cone, site = read("cone.jpg"), read("site-morning.jpg")
text = base64.b64encode(cone).decode()

form = ask("POST", "/v1/detect", files=[("image", cone), ("image", site)], data={"max_results": 3}).json()
raw = ask("POST", "/v1/classify", data=cone, params={"top_k": 1}, headers={"Content-Type": "image/jpeg"}).json()
json = ask("POST", "/v1/classify", json={"images": [text], "top_k": 1}).json()
print(raw["results"] == json["results"])
for found in form["results"][1]["detections"]:
    print(f"{found['label']:<8} {found['score']:.2f}  {found['box']}")

models = ask("GET", "/v1/models").json()["models"]
if any(each["task"] == "segment" for each in models):
    print(ask("POST", "/v1/segment", files=[("image", site)], data={"max_classes": 3}).json()["results"][0])
if any(each["task"] == "instances" for each in models):
    print(ask("POST", "/v1/instances", files=[("image", site)]).json()["results"][0])
if any(each["task"] == "embed" for each in models):
    print(ask("POST", "/v1/embed", files=[("image", site)]).json()["results"][0])

model = models[0]["name"]
print(ask("GET", f"/v1/models/{model}").json()["architecture"])

entry = {"image": {"content": text}, "features": [{"score_th": 0.5, "maxResults": 1}]}
print(ask("POST", "/predict", json={"requests": [entry]}).json()["responses"])
print(ask("POST", "/", json={"image": text, "nms_iou": 0.4}).json()["normalizedVertices"][0]["label"])
print(ask("POST", "/upload", files=[("image_upload", ("cone.jpg", cone))]).headers["Content-Type"])

key = {"Idempotency-Key": f"{time.time_ns()}"}
pictures = [("image", cone), ("image", site)]
job = ask("POST", "/v1/jobs", files=pictures, data={"task": "detect"}, headers=key).json()["id"]
while (state := ask("GET", f"/v1/jobs/{job}").json())["state"] in ("queued", "running"):
    print(state["progress"])
    time.sleep(1)
lines = ask("GET", f"/v1/jobs/{job}/results").text.splitlines()
print(len(lines), len(ask("GET", "/v1/jobs").json()["jobs"]) > 0)
print(ask("GET", "/get_result", params={"job_id": job}).json()["status"], ask("DELETE", f"/v1/jobs/{job}").status_code)

merged = ask("POST", "/v1/ensemble", files=[("image", cone)], params={"task": "classify", "member_timeout": 2}).json()
print(merged["results"][0]["predictions"][0], [each["name"] for each in merged["members"]], merged["missing"])

call = {"jsonrpc": "2.0", "method": "Image.classify", "params": [text, 1], "id": 1}
print(ask("POST", "/api", json=call).json()["result"]["results"])

tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
found = ask("POST", f"/v2/models/{model}/infer", json={"inputs": [tensor], "outputs": [{"name": "labels"}]}).json()
print(found["outputs"][0]["data"])
print(ask("GET", "/v2").json()["name"], ask("GET", "/v2/health/live").json(), ask("GET", "/v2/health/ready").json())
print(ask("GET", f"/v2/models/{model}").json()["versions"], ask("GET", f"/v2/models/{model}/ready").json()["ready"])
print(ask("GET", "/v2/models").json(), ask("GET", f"/v2/models/{model}/config").json()["max_batch_size"])
print(len(ask("GET", "/v2/models/stats").json()["model_stats"]), ask("GET", f"/v2/models/{model}/stats").json())
print(ask("POST", "/v2/repository/index").json()[0]["state"])

for path in ("/livez", "/readyz", "/startupz", "/status", "/version", "/openapi.json"):
    print(path, ask("GET", path).status_code)
