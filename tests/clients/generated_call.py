"""One prediction by the client that was generated from /openapi.json: ``python generated_call.py URL IMAGE``.

Runs in an environment of its own; PYTHONPATH says where the generated package ``cask_client`` lies.
"""

import base64
import os
import sys
from pathlib import Path

from cask_client import AuthenticatedClient
from cask_client.api.predictions import post_api_detect
from cask_client.models import DetectAnswer, PostApiDetectJsonBody


def main(url: str, image: bytes) -> int:
    """Print what was found, a line each; 1 where the answer is no typed one."""
    client = AuthenticatedClient(base_url=url, token=os.environ["CASK_TOKEN"], timeout=30)
    body = PostApiDetectJsonBody(images=[base64.b64encode(image).decode()])
    answer = post_api_detect.sync(client=client, body=body, max_results=2)
    if not isinstance(answer, DetectAnswer):
        print(answer)
        return 1
    for each in answer.results[0].detections:
        print(each.label, f"{each.score:.3f}", f"{each.box.x_min:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).read_bytes()))
