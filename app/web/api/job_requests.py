"""What a caller sends to make a job: images or an archive into a pack, and what is requested for them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple, cast

from flask import Request

from app import tasks
from app.errors import ImageMissingError, OptionError, RequestError, TooManyImagesError
from app.inference import code_items, options
from app.inference.pipeline import predictor
from app.jobs import archives
from app.jobs.image_packs import Pack
from app.models.manifests import CODE, Task
from app.models.routing import Choice
from app.web.api import bodies, code_bodies, code_jobs, json_bodies
from app.web.middleware import body_limits

ARCHIVE_PART = "archive"
# What is said of the job and not of the prediction.
TASK = "task"
WEBHOOK_URL = "webhook_url"
# Pictures to look at, one at a time.
NOT_HERE = {"explain", "explain_label"}
TASKS = tasks.OFFERED
MAX_KEY_CHARACTERS = 255
VISIBLE = re.compile(r"[!-~]*")
PIECE_BYTES = 256 * 1024


class Said(NamedTuple):
    """The options of a new job."""

    task: Task
    params: dict[str, Any]
    webhook_url: str
    # Model and version that answer, where that is decided already.
    answered_by: Mapping[str, str] | None = None


def read(request: Request, pack: Pack) -> Said:
    """Put what the body holds into the pack; return what is requested.

    Raises RequestError, MediaTypeError, OptionError, ArchiveError, ImageMissingError, and what ``Pack.add`` raises.
    """
    address = bodies.in_address(request)
    document = _json_document(request) if request.mimetype == "application/json" else {}
    choice = code_jobs.choice({**address, **document})
    if choice and request.mimetype in ("application/json", code_jobs.JSON_LINES):
        given = code_jobs.read_items(choice, document or bodies.read_whole(request), pack)
        return _said_of_code(choice, address, given)
    given = {**address, **_read_images(request, document, pack)}
    choice = choice or code_jobs.choice(given)
    if choice:
        code_jobs.check_files(choice)
        return _said_of_code(choice, given, {})
    return said(given)


def _read_images(request: Request, document: dict[str, Any], pack: Pack) -> Mapping[str, Any]:
    """Images into the pack; what stands beside them."""
    kind = request.mimetype
    beside: Mapping[str, Any] = {}
    if kind == "multipart/form-data":
        beside = _read_multipart(request, pack)
    elif kind == "application/json":
        beside = _read_json(document, pack)
    elif kind in archives.MEDIA_TYPES:
        # In memory while it is small.
        with tempfile.SpooledTemporaryFile(max_size=2**20) as file:
            _copy(request, file)
            archives.fill(pack, cast(BinaryIO, file))
    elif bodies.holds_bytes(kind):
        pack.add("image", bodies.read_whole(request))
    else:
        raise bodies.media_type_error(
            kind,
            "multipart/form-data with image parts or an archive, application/json, image/*, application/zip or"
            " application/x-tar",
        )
    if not pack.entries:
        raise ImageMissingError(
            "The request holds no image.",
            hint='Send parts named "image" or one named "archive", or JSON {"images": [base64, …]}.',
        )
    return beside


def _said_of_code(choice: Choice, texts: Mapping[str, Any], values: Mapping[str, Any]) -> Said:
    """``texts``: of a form or an address; ``values``: of JSON. A wrong option is the caller's mistake, now."""
    signature = choice.manifest.signature
    given = {**code_bodies.typed(signature["options"], texts), **values}
    options = {name: value for name, value in given.items() if name not in (TASK, WEBHOOK_URL, *code_jobs.NAMES)}
    code_items.options(signature, options)
    url, manifest = str(given.get(WEBHOOK_URL) or ""), choice.manifest
    asked = {name: given[name] for name in code_jobs.NAMES if given.get(name)}
    return Said(CODE, {**asked, **options}, url, {"model": manifest.name, "version": manifest.version})


def said(given: Mapping[str, Any]) -> Said:
    """The options, apart. Raises OptionError."""
    task = given.get(TASK, "")
    task = TASKS[0] if task == "" else task
    if task not in TASKS:
        raise OptionError(
            "task is %(value)s.", hint="One of: %(values)s.", value=ascii(str(task)[:80]), values=", ".join(TASKS)
        )
    params = {name: value for name, value in given.items() if name != TASK}
    for name in NOT_HERE & set(params):
        raise OptionError(
            "%(name)s is not an option of jobs.", hint="Ask POST /v1/classify for single images.", name=name
        )
    url = str(params.pop(WEBHOOK_URL, ""))
    options.parse(task, params, (TASK, WEBHOOK_URL), tuple(NOT_HERE))
    return Said(task, {name: value for name, value in params.items() if value not in ("", None)}, url)


def answered_by(said: Said) -> dict[str, str]:
    """Model and version that will answer all images of the job.

    Chosen now and not when its turn comes: one version answers them all, and a model that does not exist is the
    caller's mistake. Raises ModelNotFoundError, OptionError.
    """
    if said.answered_by is not None:
        return dict(said.answered_by)
    manifest = predictor().settle(said.task, said.params.get("model"), said.params.get("version")).manifest
    # A label that this version does not know is refused here, and not once an image.
    options.complete(options.parse(said.task, said.params), manifest)
    return {"model": manifest.name, "version": manifest.version}


def key(request: Request) -> str:
    """The caller's Idempotency-Key; empty for none. Raises OptionError."""
    text = request.headers.get("Idempotency-Key", "").strip()
    # A structured field (RFC 8941) is quoted; most callers send it bare.
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if len(text) > MAX_KEY_CHARACTERS or not VISIBLE.fullmatch(text):
        raise OptionError(
            "Idempotency-Key has %(count)s characters, or blanks or others than visible ASCII.",
            hint="At most %(most)s visible ASCII characters without blanks, such as a UUID.",
            count=len(text),
            most=MAX_KEY_CHARACTERS,
        )
    return text


def _read_multipart(request: Request, pack: Pack) -> dict[str, Any]:
    # One of them more, and Pack says so in words that name the limit.
    request.max_form_parts = pack.limits.max_images + 51
    fields = bodies.fields_beside(request, (bodies.IMAGE_PART, ARCHIVE_PART))
    images, packed = request.files.getlist(bodies.IMAGE_PART), request.files.getlist(ARCHIVE_PART)
    if len(packed) > 1 or (packed and images):
        raise RequestError("There is an archive beside other files.", hint="Send images, or one archive.")
    for number, part in enumerate(images, start=1):
        pack.add(part.filename or f"image {number}", cast(BinaryIO, part.stream))
    for part in packed:
        archives.fill(pack, cast(BinaryIO, part.stream))
    return fields


def _json_document(request: Request) -> dict[str, Any]:
    document = bodies.load(bodies.read_whole(request), bodies.HINT)
    if not isinstance(document, dict):
        raise RequestError(
            "The JSON is %(found)s, expected an object.", hint=bodies.HINT, found=json_bodies.kind_of(document)
        )
    return document


def _read_json(document: dict[str, Any], pack: Pack) -> dict[str, Any]:
    texts = bodies.listed(document.pop(bodies.IMAGES_KEY, None))
    if len(texts) > pack.limits.max_images:
        raise TooManyImagesError(
            "The job has %(count)s images; at most %(most)s are accepted.",
            hint="Make several jobs of them; the operator of this service sets the limit.",
            count=len(texts),
            most=pack.limits.max_images,
        )
    for number, text in enumerate(texts, start=1):
        pack.add(f"image {number}", bodies.decode(number, text))
    return bodies.flat(document)


def _copy(request: Request, file: Any) -> None:
    """The body into a file, ready to be read. Raises RequestTooLargeError."""
    limit = request.max_content_length
    count = 0
    while piece := request.stream.read(PIECE_BYTES):
        count += len(piece)
        file.write(piece)
    if request.content_length is None and limit is not None and count >= limit:
        # Werkzeug cuts such a body off at the limit without a word.
        raise body_limits.too_large(None, limit)
    file.seek(0)
