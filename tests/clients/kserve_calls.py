"""Ten calls by KServe's own client, a line each: ``python kserve_calls.py URL IMAGE``, with CASK_TOKEN.

Runs in an environment of its own, which knows nothing of this project.
"""

import asyncio
import base64
import os
import sys
from pathlib import Path

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

DETECTOR, CLASSIFIER = "site-safety-detector", "site-safety-classifier"
HEADERS = {"X-Api-Token": os.environ["CASK_TOKEN"]}


def encoded(image: bytes, is_binary: bool) -> InferInput:
    """One image as it lies in its file."""
    if not is_binary:
        return InferInput("image", [1], "BYTES", data=[base64.b64encode(image).decode()])
    tensor = InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([image], np.object_), binary_data=True)
    return tensor


def pixels() -> InferInput:
    """A grey picture."""
    tensor = InferInput("pixels", [1, 48, 64, 3], "UINT8")
    tensor.set_data_from_numpy(np.full((1, 48, 64, 3), 128, np.uint8), binary_data=True)
    return tensor


async def main(url: str, image: bytes) -> None:
    """Raises whatever the client raises, and AssertionError where the answer is another."""
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=30))

    async def infer(model: str, tensor: InferInput, **more: object) -> dict[str, list[int]]:
        requested = InferRequest(model, [tensor], **more)
        answer = await client.infer(url, requested, model_name=model, headers=dict(HEADERS))
        return {each.name: list(each.shape) for each in answer.outputs}

    print(1, await client.is_server_live(url, headers=HEADERS))
    print(2, await client.is_server_ready(url, headers=HEADERS))
    print(3, await client.is_model_ready(url, DETECTOR, headers=HEADERS))
    print(4, not await client.is_model_ready(url, "nobody", headers=HEADERS))
    print(5, (await infer(DETECTOR, encoded(image, is_binary=True)))["counts"] == [1])
    print(6, (await infer(DETECTOR, encoded(image, is_binary=False)))["counts"] == [1])
    print(7, (await infer(CLASSIFIER, pixels(), parameters={"top_k": 2}))["labels"] == [1, 2])
    requested = [RequestedOutput("scores")]
    print(8, list(await infer(CLASSIFIER, pixels(), request_outputs=requested, request_id="8")) == ["scores"])
    data = [base64.b64encode(image).decode()]
    plain = {"id": "9", "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": data}]}
    print(9, (await client.infer(url, plain, model_name=DETECTOR, headers=HEADERS)).id == "9")
    try:
        await client.infer(url, plain, model_name="nobody", headers=HEADERS)
    except httpx.HTTPStatusError as error:
        # In the service's words, which the client found in the answer.
        print(10, error.response.status_code == 404 and "There is no model nobody" in str(error))
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes()))
