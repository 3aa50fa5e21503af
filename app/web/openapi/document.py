"""The OpenAPI 3.1 document: every address of the app with what is written beside its view."""

from __future__ import annotations

import functools
import inspect
import tomllib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NotRequired

from flask import Flask
from pydantic import TypeAdapter
from typing_extensions import TypedDict
from werkzeug.routing import AnyConverter, BaseConverter, Rule, UUIDConverter
from werkzeug.routing.converters import NumberConverter

from app import __version__, errors, tasks
from app.config import ROOT
from app.errors import CaskError
from app.web import policy
from app.web.middleware import authentication, origins, rate_limits
from app.web.middleware.trusted_hosts import HostError
from app.web.openapi import code_paths, operations
from app.web.openapi.operations import Answer, Body, Operation
from app.web.policy import Access, RoutePolicy

VERSION = "3.1.1"
PROBLEM_MEDIA_TYPE = "application/problem+json"
# In the order in which people look for them; those of other people's views come last, by name.
TAGS = (
    "Predictions",
    "Jobs",
    "Models",
    "Earlier clients",
    "JSON-RPC",
    "Open Inference Protocol",
    "Health",
    "The page",
    "This description",
)
# An image in a form, and in JSON.
IMAGE_FORMATS = ("binary", "base64-image")
# The options whose right values are the labels of the models that are served, and for which task.
LABELS = {task.label_option: task.name for task in tasks.ALL if task.label_option}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# What Apache answers before Python sees a request, whatever the address; words from apache/errors.toml.
APACHE_STATUSES = ("400", "408", "413", "414", "431", "500", "502", "503", "504")

# What the parts of an address are in JSON Schema, by Flask's converters.
A_TEXT = {"type": "string", "minLength": 1}
EXAMPLE_REQUEST_ID = "awCUYJm_o1U9NTrRRxcP7wAAAB4"
REF = "#/components/schemas/{model}"
DESCRIPTION = (
    "A Flask app and a torch model in one Apache container. Every failure is a problem document (RFC 9457), unless the "
    "protocol of an address has a shape of its own. Send `X-Request-Id` to find a request in the logs again."
)


def _header(words: str, kind: str = "string", **bounds: Any) -> dict[str, Any]:
    return {"description": words, "schema": {"type": kind, **bounds}}


HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": _header("The id under which the logs have this request."),
    "Retry-After": _header("Seconds after which to send it again.", "integer", minimum=1),
    "Location": _header("The address of what was made.", format="uri-reference"),
    "RateLimit-Limit": _header("How many requests the limit allows that is nearest to its end.", "integer"),
    "RateLimit-Remaining": _header("How many are left of them.", "integer"),
    "RateLimit-Reset": _header("Seconds until they begin anew.", "integer"),
    "RateLimit-Policy": _header("The limit and the seconds that it is for: `600;w=60`."),
    "WWW-Authenticate": _header("How to come in: `Bearer`."),
    "Server-Timing": _header("Milliseconds of each step: cache, decode, queue, predict, engine."),
    "ETag": _header("Names this answer: send it in `If-None-Match` to hear whether it has changed."),
    "X-Cache": _header(
        "Where the answers are from; absent where none are kept.", enum=["hit", "shared", "miss", "bypass", "partial"]
    ),
    "Age": _header("Seconds since the oldest answer was computed; with kept answers only.", "integer", minimum=0),
}
# What callers may send.
SENT = {
    "X-Request-Timeout": _header("Seconds that you are willing to wait.", "number", exclusiveMinimum=0),
    "X-Request-Id": _header("Your own id for this request, 8 to 64 of `A-Z a-z 0-9 @ . _ -`; another is replaced."),
    "Idempotency-Key": _header(
        "Your own name for this job: sent again with the same body, the same job is answered.",
        maxLength=255,
        pattern="^[!-~]*$",
    ),
    "X-Model-Canary": _header(
        "Only the version that is tried out, or surely not that one; its share decides when left out.",
        enum=["always", "never"],
    ),
    "If-None-Match": _header("The `ETag` of an answer that you have: 304 where it is still the same."),
    "Cache-Control": _header(
        "`no-cache`: compute anew; `no-store`: nor keep it; `max-age=60`: a younger answer will do."
    ),
}
PARAMETERS: dict[str, dict[str, Any]] = {name: {"name": name, "in": "header", **row} for name, row in SENT.items()}
# For parts of an address that no model names.
EXAMPLES = {"job_id": "9f2c41d06b7aa5e3d1c07b42"}
SECURITY_SCHEMES: dict[str, dict[str, Any]] = {
    "token": {"type": "apiKey", "in": "header", "name": authentication.HEADER, "description": "A token: `cask_…`."},
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same token as `Authorization: Bearer cask_…`."},
}
# The others belong to the operations that name them.
EVERYWHERE = ("X-Request-Timeout", "X-Request-Id")


class Problem(TypedDict):
    """How every failure is told (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str
    request_id: str
    reason: NotRequired[Literal["slow", "slots"]]


def build(app: Flask) -> dict[str, Any]:
    """The document for this app: its addresses, models and limits."""
    return _Document(app).build()


def addresses(app: Flask) -> Iterator[tuple[str, Rule, Operation]]:
    """Each method and address that a program may call, with what it promises; files as they lie on disk are none."""
    for rule, here in sorted(policy.routes(app), key=lambda each: each[0].rule):
        if here == policy.FILE_ROUTE:
            continue
        for method in METHODS:
            if method in (rule.methods or ()):
                yield method, rule, operations.of(app, rule)


def order(tag: str) -> tuple[int, str]:
    """Where a group of addresses stands."""
    return (TAGS.index(tag) if tag in TAGS else len(TAGS), tag)


class _Document:
    """Collects types on the way, so that each is described once, below components."""

    def __init__(self, app: Flask) -> None:
        self._settings = app.extensions["settings"]
        self._manifests = app.extensions["predictor"].manifests
        self._app = app
        self._has_rates = bool(self._settings.rate_limit_per_address or self._settings.rate_limit_per_token)
        self._asks_for_tokens = self._settings.authentication == "required"
        self._schemas: dict[str, Any] = {}

    def build(self) -> dict[str, Any]:
        rows = list(addresses(self._app))
        self._describe_types(rows)
        paths: dict[str, dict[str, Any]] = {}
        ids: dict[str, int] = {}
        schemes = {"securitySchemes": SECURITY_SCHEMES} if self._asks_for_tokens else {}
        for method, rule, operation in rows:
            path = paths.setdefault(policy.template(rule.rule), {})
            found = path[method.lower()] = self._operation(rule, operation, method)
            # A view may have several addresses with equal parts.
            count = ids[found["operationId"]] = ids.get(found["operationId"], 0) + 1
            found["operationId"] += f"_{count}" if count > 1 else ""
        code_paths.add(paths, self._manifests)
        return {
            "openapi": VERSION,
            "info": {
                "title": "Cask",
                "version": __version__,
                "description": DESCRIPTION,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "tags": [{"name": name} for name in sorted({each.tag for _, _, each in rows}, key=order)],
            "paths": paths,
            "components": {"schemas": self._schemas, "headers": HEADERS, "parameters": self._parameters(), **schemes},
        }

    # ── types ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _describe_types(self, rows: list[tuple[str, Rule, Operation]]) -> None:
        types: dict[int, Any] = {id(Problem): Problem}
        for _, _, operation in rows:
            bodies = [each.schema for each in operation.bodies]
            answers = [each.schema for each in operation.answers.values()]
            types |= {id(each): each for each in (*bodies, *answers, operation.error_schema) if _is_type(each)}
        inputs = [(key, "validation", TypeAdapter(type_)) for key, type_ in types.items()]
        self._by_type, definitions = TypeAdapter.json_schemas(inputs, ref_template=REF)  # type: ignore[arg-type]
        self._schemas = definitions.get("$defs", {})

    def _schema(self, schema: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._by_type[(id(schema), "validation")] if _is_type(schema) else schema
        return found

    # ── one operation ────────────────────────────────────────────────────────────────────────────────────────────────

    def _operation(self, rule: Rule, operation: Operation, method: str) -> dict[str, Any]:
        view = self._app.view_functions[rule.endpoint]
        found: dict[str, Any] = {
            "operationId": "_".join((method.lower(), *rule.endpoint.split("."), *sorted(rule.arguments))),
            "tags": [operation.tag],
            "summary": operation.summary,
            "description": _first_line(view, method),
            "parameters": [
                *self._path(rule, operation),
                *self._query(operation),
                *({"$ref": f"#/components/parameters/{name}"} for name in (*EVERYWHERE, *operation.headers)),
            ],
            "responses": self._responses(rule, operation),
        }
        if self._needs_token(rule):
            found["security"] = [{name: []} for name in SECURITY_SCHEMES]
        if operation.bodies:
            content = {each.media_type: self._body(each) for each in operation.bodies}
            found["requestBody"] = {"required": operation.is_body_required, "content": content}
        return found

    def _needs_token(self, rule: Rule) -> bool:
        return self._asks_for_tokens and self._policy(rule).needs_token

    def _policy(self, rule: Rule) -> RoutePolicy:
        return policy.of(self._app, rule.endpoint)

    def _refusals(self, rule: Rule) -> tuple[type[CaskError], ...]:
        """How callers are refused who may not ask."""
        here = self._policy(rule)
        tokens = (
            (errors.TokenMissingError, errors.TokenInvalidError, errors.ScopeMissingError)
            if self._needs_token(rule)
            else ()
        )
        # Browsers send a session's cookie with every form; programs with tokens never meet this.
        is_form = here.is_form or (tokens and origins.is_changing(rule.methods or ()))
        forms = (errors.ForeignFormError,) if is_form else ()
        rates_found = (errors.TooManyRequestsError,) if here.limits or (self._has_rates and here.is_limited) else ()
        return (*tokens, *forms, *rates_found, *((errors.OutsideError,) if here.access is Access.ADMIN else ()))

    def _path(self, rule: Rule, operation: Operation) -> Iterator[dict[str, Any]]:
        for name in policy.PART.findall(rule.rule):
            row = {"name": name, "in": "path", "required": True, "schema": _of_part(rule._converters[name])}
            example = self._example_of(name, rule)
            yield {**row, "description": operation.path.get(name, ""), **({"example": example} if example else {})}

    def _example_of(self, name: str, rule: Rule) -> str:
        if rule.endpoint == "pages.sample":
            samples = (self._settings.models_dir / "samples").glob("*.jpg")
            return min((path.name for path in samples), default="")
        manifest = next((each for each in self._manifests if not each.code), self._manifests[0])
        return {**EXAMPLES, "name": manifest.name, "version": manifest.version}.get(name, "")

    def _query(self, operation: Operation) -> Iterator[dict[str, Any]]:
        if operation.query is None:
            return
        document = operation.query.model_json_schema()
        for name, schema in document["properties"].items():
            plain = next((each for each in schema.get("anyOf", ()) if each != {"type": "null"}), schema)
            plain = {key: value for key, value in plain.items() if key not in ("title", "default", "description")}
            is_required = name in document.get("required", ())
            row = {"name": name, "in": "query", "required": is_required, "allowEmptyValue": not is_required}
            if name in LABELS:
                plain |= self._labels(LABELS[name])
            yield {**row, "schema": plain, "description": schema.get("description", "")}

    def _labels(self, task: str) -> dict[str, Any]:
        """Every label that a model of this task can name, and their aliases; the types cannot know them.

        Nothing where there is no such model: an empty ``enum`` is no valid schema.
        """
        every = (name for each in self._manifests if each.task == task for name in (*each.labels, *each.aliases))
        found = list(dict.fromkeys(every))
        return {"enum": found} if found else {}

    def _body(self, body: Body) -> dict[str, Any]:
        found: dict[str, Any] = {"schema": self._localized(self._schema(body.schema))}
        if body.examples:
            found["examples"] = {name: {"value": value} for name, value in body.examples.items()}
        return found

    def _localized(self, schema: Any) -> Any:
        """With this service's limit of images and names of models, however deep; the types cannot know them."""
        if isinstance(schema, list):
            return [self._localized(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        found = {name: self._localized(each) for name, each in schema.items()}
        if found.get("type") == "array" and found.get("items", {}).get("format") in IMAGE_FORMATS:
            found["maxItems"] = getattr(self._settings, found.get("maxItems", "request_max_images"))
        properties = found.get("properties", {})
        task = next((name for name in tasks.NAMES if tasks.BY_NAME[name].count_option in properties), tasks.OFFERED[0])
        model = next((each for each in self._manifests if each.task == task), self._manifests[0])
        for name in LABELS.keys() & properties.keys():
            label = properties[name]
            # In a form there is no null.
            for each in label.get("anyOf", [label]):
                if each.get("type") == "string" and "format" in each:
                    each |= self._labels(LABELS[name])
        for name, value in (("model", model.name), ("version", model.version)):
            if "pattern" in str(properties.get(name)):
                properties[name]["examples"] = [value]
        return found

    def _parameters(self) -> dict[str, dict[str, Any]]:
        timeout = PARAMETERS["X-Request-Timeout"]
        schema = {
            **timeout["schema"],
            "maximum": self._settings.request_max_timeout_seconds,
            "default": self._settings.request_timeout_seconds,
        }
        return {**PARAMETERS, "X-Request-Timeout": {**timeout, "schema": schema}}

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _responses(self, rule: Rule, operation: Operation) -> dict[str, Any]:
        found = {str(status): self._answer(answer) for status, answer in operation.answers.items()}
        for status, problems in sorted(self._problems(rule, operation).items()):
            answer = found.setdefault(status, _answered(FAILURES[status], OWN_HEADERS.get(status, ())))
            content = answer.setdefault("content", {}).setdefault(
                PROBLEM_MEDIA_TYPE, {"schema": self._schema(Problem), "examples": {}}
            )
            content["examples"] = {each["code"]: {"value": each} for each in problems}
            if self._policy(rule).is_page:
                answer["content"].setdefault(operations.HTML, {"schema": {"type": "string"}})
        if operation.error_schema is not None:
            self._add_own_shape(found, operation, self._refusals(rule))
        return found

    def _answer(self, answer: Answer) -> dict[str, Any]:
        found = _answered(answer.description, answer.headers)
        if answer.media_type and (answer.schema is not None or answer.media_type != operations.JSON):
            row = {"schema": self._schema(answer.schema) if answer.schema is not None else {"type": "string"}}
            example = {"example": answer.example} if answer.example is not None else {}
            found["content"] = {answer.media_type: {**row, **example}}
        if answer.is_binary_too:
            found["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
        return found

    def _problems(self, rule: Rule, operation: Operation) -> dict[str, list[dict[str, Any]]]:
        """Status → problem documents that can come with it, each code once."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        own = () if operation.error_schema is not None else operation.errors
        hosts = (HostError,) if self._policy(rule).is_own_host_only else ()
        kinds: tuple[type[CaskError], ...] = (
            *(
                *own,
                *self._refusals(rule),
                *_of_bodies(operation),
                errors.OptionError,
                errors.RequestTooLargeError,
                CaskError,
            ),
            *hosts,
        )
        for kind in kinds:
            status, code = str(kind.status), kind.code
            found.setdefault(status, {})[code] = dict(example(kind).to_problem(EXAMPLE_REQUEST_ID))
        for status in APACHE_STATUSES:
            problem = _apache_problem(status, self._settings.request_max_bytes)
            found.setdefault(status, {}).setdefault(str(problem["code"]), dict(problem))
        return {status: list(by_code.values()) for status, by_code in found.items()}

    def _add_own_shape(
        self, found: dict[str, Any], operation: Operation, refusals: tuple[type[CaskError], ...]
    ) -> None:
        """A protocol's own shape beside the problem documents of guards and Apache."""
        assert operation.error_example is not None
        by_status: dict[str, dict[str, Any]] = {}
        guards: tuple[type[CaskError], ...] = (errors.OptionError, errors.RequestTooLargeError, CaskError, HostError)
        for kind in (*operation.errors, *_of_bodies(operation), *guards, *refusals):
            by_status.setdefault(str(kind.status), {})[kind.code] = {
                "value": operation.error_example(example(kind), EXAMPLE_REQUEST_ID)
            }
        for status, examples in by_status.items():
            answer = found.setdefault(status, _answered(FAILURES[status], OWN_HEADERS.get(status, ())))
            schema = self._schema(operation.error_schema)
            answer.setdefault("content", {})[operations.JSON] = {"schema": schema, "examples": examples}


# Headers that come with every failure of a status.
OWN_HEADERS = {
    "429": ("Retry-After", *rate_limits.HEADERS),
    "401": ("WWW-Authenticate",),
    "503": ("Retry-After",),
    "507": ("Retry-After",),
}
FAILURES = {
    "400": "The request is malformed, or asks another host.",
    "401": "No token was shown, or one that is not valid.",
    "403": "The token, or the caller's address, does not allow this.",
    "404": "There is no such model, version, task or sample.",
    "408": "The request arrived too slowly.",
    "413": "More bytes, pixels or images than are accepted.",
    "414": "The address is too long.",
    "415": "Neither the Content-Type nor the bytes are what this address takes.",
    "422": "An option or an image cannot be used.",
    "429": "As many requests came as are allowed in this time: see Retry-After.",
    "431": "The headers are too large.",
    "500": "A fault of ours; the log has it under the request id.",
    "502": "The application went away while it answered.",
    "503": "Not now: see Retry-After.",
    "504": "The deadline passed.",
    "508": "Ensembles ask each other.",
    "507": "No room to keep it.",
}


def example(kind: type[CaskError]) -> CaskError:
    """A failure of this kind, told in the words of its class."""
    return kind((kind.__doc__ or "").splitlines()[0])


def _answered(words: str, headers: Iterable[str]) -> dict[str, Any]:
    return {
        "description": words,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *headers)},
    }


def _of_part(converter: BaseConverter) -> dict[str, Any]:
    """What a part of an address may be."""
    if isinstance(converter, NumberConverter):
        least = converter.min if converter.min is not None or converter.signed else 0
        bounds = {"minimum": least, "maximum": converter.max}
        kind = "integer" if converter.num_convert is int else "number"
        return {"type": kind, **{name: bound for name, bound in bounds.items() if bound is not None}}
    if isinstance(converter, AnyConverter):
        return {"type": "string", "enum": sorted(converter.items)}
    return {"type": "string", "format": "uuid"} if isinstance(converter, UUIDConverter) else A_TEXT


def _first_line(view: Callable[..., Any], method: str) -> str:
    """Of the docstring; where the view is a class, first of that of its function for this method."""
    inner = inspect.unwrap(view)
    inner = inner.func if isinstance(inner, functools.partial) else inner
    own = getattr(getattr(inner, "view_class", None), method.lower(), None)
    return next(iter((getattr(own, "__doc__", None) or inner.__doc__ or "").strip().splitlines()), "")


def _of_bodies(operation: Operation) -> tuple[type[CaskError], ...]:
    """How bodies are refused that nobody looks into."""
    return (errors.ContentEncodingError,) if operation.bodies else ()


@functools.cache
def _apache_problem(status: str, most_bytes: int) -> dict[str, str | int]:
    words = tomllib.loads((ROOT / "apache" / "errors.toml").read_text())[status]
    detail = words["detail"].replace("{request_max_bytes}", str(most_bytes))
    error = CaskError(detail, hint=words["hint"])
    error.status, error.code, error.title = int(status), words["code"], words["title"]
    return error.to_problem(EXAMPLE_REQUEST_ID)


def _is_type(schema: Any) -> bool:
    return schema is not None and not isinstance(schema, dict)
