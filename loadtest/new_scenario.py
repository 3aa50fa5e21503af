"""Writes a scenario file from an OpenAPI description: one scenario an operation, which runs as it is written."""

from __future__ import annotations

import ast
import json
import re
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from loadtest import guard
from loadtest.guard import Target
from loadtest.openapi_values import BASE64, NOTHING, RAW, Endless, Values, shown_of
from loadtest.statuses import LoadTestError, UsageError

# What removes is never written: a person adds it.
METHODS = ("get", "post", "put", "patch")
BYTES_MOST = 20_000_000
NAME = re.compile(r"[a-z][a-z0-9_]*")
# A caller who made a mistake, not one who may not or is too quick.
MISTAKES = ("400", "404", "409", "415", "422")
HEAD = '''"""{title}: made from its OpenAPI description. Write what callers send and what is right in place of it."""
{imports}'''


def read(place: str, target: Target | None) -> dict[str, Any]:
    """A description, of a file or an address. ``target``: whose token to show there. Raises UsageError."""
    try:
        data = _fetch(place, target) if "://" in place else Path(place).read_bytes()
    except (OSError, LoadTestError, ValueError) as error:
        raise UsageError(f"OPENAPI {place!r} cannot be read: {error}") from None
    try:
        document = json.loads(data)
    except ValueError:
        document = _yaml(data, place)
    told = document.get("openapi", document.get("swagger")) if isinstance(document, dict) else None
    if not str(told).startswith("3.") or not isinstance(document.get("paths"), dict):
        raise UsageError(f"OPENAPI {place!r} says version {told!r}; expected a description of OpenAPI 3.0 or 3.1.")
    return document


def _fetch(place: str, target: Target | None) -> bytes:
    parts = urlsplit(place)
    if target and place.startswith(target.url + "/"):
        return guard.fetch(target, place.removeprefix(target.url))
    if parts.scheme not in guard.DEFAULT_PORTS:
        raise ValueError(f"the scheme is {parts.scheme!r}; expected http or https")
    with urllib.request.urlopen(place, timeout=guard.ASK_SECONDS) as answer:
        return bytes(answer.read(BYTES_MOST))


def _yaml(data: bytes, place: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise UsageError(f"OPENAPI {place!r} is no JSON; to read YAML: .venv/bin/pip install pyyaml") from None
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"OPENAPI {place!r} is neither JSON nor YAML: {str(error).splitlines()[0]}") from None


@dataclass
class Written:
    """The text of a scenario file, how many operations it has, and why others are left out."""

    text: str
    count: int
    left_out: list[str]


def write(document: Mapping[str, Any], prefix: str = "", only: str = "") -> Written:
    """The file; ``prefix``: of the target, which the description's own need not repeat; ``only``: paths begin so."""
    base = _base(document)
    base = "" if base == prefix else base
    operations: list[str] = []
    left_out: list[str] = []
    names: set[str] = set()
    for path, row in document["paths"].items():
        for method in METHODS:
            if not path.startswith(only) or not isinstance(row, Mapping) or method not in row:
                continue
            operation = _Operation(document, base, str(path), method, row)
            try:
                text = operation.text(names)
            except (Endless, UsageError) as error:
                left_out.append(f"{method.upper()} {path}: {error or 'its body would hold itself'}")
            else:
                operations.append(text)
    if not operations:
        where = f" below {only}" if only else ""
        raise UsageError(f"The description has no operation{where} that can be called. {'; '.join(left_out)}")
    code = "\n\n".join(operations)
    imports = "\nimport base64\n" if "base64." in code else ""
    if "PICTURE" in code:
        imports += "from pathlib import Path\n" if imports else "\nfrom pathlib import Path\n"
        imports += '\nPICTURE = sorted(Path("models/samples").glob("*.jpg"))[0].read_bytes()\n'
    title = re.sub(r'["\\\s]+', " ", str(document.get("info", {}).get("title", "A service")))
    text = f"{HEAD.format(title=title, imports=imports)}\n\n{code}"
    ast.parse(text)
    return Written(text, len(operations), left_out)


def _base(document: Mapping[str, Any]) -> str:
    """The path of the first server, its variables at their defaults."""
    server: Mapping[str, Any] = next(iter(document.get("servers") or ()), {})
    url = str(server.get("url", ""))
    for name, variable in (server.get("variables") or {}).items():
        url = url.replace(f"{{{name}}}", str(variable.get("default", "")))
    return urlsplit(url).path.rstrip("/")


class _Operation:
    def __init__(self, document: Mapping[str, Any], base: str, path: str, method: str, row: Mapping[str, Any]) -> None:
        self._document, self._base, self._path, self._method = document, base, path, method
        self._operation = row[method]
        self._values = Values(document)
        given = [
            self._values.resolve(each) for each in (*row.get("parameters", ()), *self._operation.get("parameters", ()))
        ]
        # One of the operation stands for one of the path.
        self._parameters = {(each.get("in"), each.get("name")): each for each in given}

    def text(self, names: set[str]) -> str:
        """Its functions. Raises Endless, UsageError."""
        words = {"method": repr(self._method.upper()), "path": repr(self._address())}
        words |= self._sent()
        name = self._name(names)
        made_up = ", ".join(dict.fromkeys(self._values.made_up))
        accepted = self._accepted(bool(made_up))
        if accepted:
            words["status"] = repr(accepted)
        lines = [f"def request_{name}(turn):"]
        if made_up:
            lines.append(
                f"    # Made up: {made_up[:80]}. Refusals count as success until values and status are written."
            )
        lines += ["    return {", *(f"        {key!r}: {value}," for key, value in words.items()), "    }", ""]
        return "\n".join([*lines, *self._check(name)])

    def _name(self, names: set[str]) -> str:
        told = str(self._operation.get("operationId") or f"{self._method}_{self._path}")
        word = (
            re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", told).lower()).strip("_") or self._method
        )
        number, name = 1, word
        while name in names:
            number += 1
            name = f"{word}_{number}"
        names.add(name)
        return name

    def _address(self) -> str:
        path = self._path
        for name in re.findall(r"{([^{}]+)}", path):
            parameter = self._parameters.get(("path", name), {"name": name})
            path = path.replace(f"{{{name}}}", quote(_word(self._value(parameter)), safe=""))
        return quote(self._base + path, safe="/%:@!$&'()*+,;=?~-._")

    def _value(self, parameter: Mapping[str, Any]) -> Any:
        shown = shown_of(parameter)
        if shown is not NOTHING:
            return shown
        content: Mapping[str, Any] = next(iter((parameter.get("content") or {}).values()), {})
        return self._values.of(parameter.get("schema", content.get("schema", {})), str(parameter.get("name")))

    def _sent(self) -> dict[str, str]:
        found: dict[str, str] = {}
        place: dict[str, dict[str, Any]] = {"query": {}, "header": {}, "cookie": {}}
        for (where, name), parameter in self._parameters.items():
            if where in place and (parameter.get("required") or "example" in parameter):
                place[where][str(name)] = self._value(parameter)
        headers = {name: repr(_word(value)) for name, value in place["header"].items()}
        if place["cookie"]:
            headers["Cookie"] = repr("; ".join(f"{name}={_word(value)}" for name, value in place["cookie"].items()))
        headers |= self._signed()
        found |= self._body(headers)
        if place["query"]:
            found["params"] = _code(place["query"])
        if headers:
            found["headers"] = _dict((repr(name), value) for name, value in headers.items())
        return found

    def _signed(self) -> dict[str, str]:
        """LOADTEST_TOKEN where the description wants one; ours is sent anyway."""
        schemes = (self._document.get("components") or {}).get("securitySchemes") or {}
        wanted = self._operation.get("security", self._document.get("security")) or ()
        for name in (each for row in wanted for each in row):
            scheme = self._values.resolve(schemes.get(name, {}))
            if scheme.get("type") == "apiKey" and scheme.get("in") == "header":
                return {str(scheme["name"]): "turn.token"}
            if scheme.get("type") in ("http", "oauth2", "openIdConnect") and scheme.get("scheme") != "basic":
                return {"Authorization": 'f"Bearer {turn.token}"'}
        return {}

    def _body(self, headers: dict[str, str]) -> dict[str, str]:
        body = self._values.resolve(self._operation.get("requestBody") or {})
        content = body.get("content") or {}
        if not content:
            return {}
        kind = min(content, key=_preference)
        media = self._values.resolve(content[kind])
        shown = shown_of({key: media[key] for key in ("example", "examples") if key in media})
        value = self._values.of(media.get("schema", {}), "body") if shown is NOTHING else shown
        if "json" in kind:
            if kind != "application/json":
                headers["Content-Type"] = repr(kind)
            return {"json": _code(value)}
        if "form" in kind and isinstance(value, dict):
            return _form(value, is_multipart="multipart" in kind)
        headers["Content-Type"] = repr(
            "image/jpeg" if kind.startswith(("image/", "*/")) else kind.replace("*", "plain")
        )
        is_bytes = value is RAW or value is BASE64 or kind.startswith(("image/", "application/octet"))
        return {"data": "PICTURE" if is_bytes else repr(value if isinstance(value, str) else json.dumps(value))}

    def _accepted(self, is_made_up: bool) -> list[int]:
        """Statuses that count as success; none where 2xx does."""
        told = [str(each) for each in self._operation.get("responses") or {}]
        right = [int(each) for each in told if each.isdigit() and each < "400"]
        if is_made_up:
            right += [int(each) for each in told if each in MISTAKES] or [int(each) for each in MISTAKES]
        # An example of something's name is there only where somebody has made it.
        right += [404] if "{" in self._path and "404" in told and 404 not in right else []
        right += [] if any(each < 300 for each in right) else [200, 201, 204]
        return sorted(right) if any(each >= 300 for each in right) else []

    def _check(self, name: str) -> list[str]:
        responses = self._operation.get("responses") or {}
        response: Mapping[str, Any] = next(
            (self._values.resolve(each) for status, each in responses.items() if str(status)[:1] == "2"), {}
        )
        media = next((each for kind, each in (response.get("content") or {}).items() if "json" in kind), None)
        schema = self._values.resolve((media or {}).get("schema", {}))
        schema = self._values.merged(schema) if isinstance(schema, Mapping) and "allOf" in schema else schema
        if not isinstance(schema, Mapping) or not media:
            return []
        wanted = sorted(set(schema.get("required") or ()) - _only_sent(schema))
        right = f"{{{', '.join(map(repr, wanted))}}} <= set(answer.json())"
        if schema.get("type") == "array":
            right = "isinstance(answer.json(), list)"
        elif not wanted:
            right = "answer.json() is not None"
        return ["", f"def check_{name}(answer):", f"    assert answer.status >= 300 or {right}", ""]


def _only_sent(schema: Mapping[str, Any]) -> set[str]:
    properties = schema.get("properties") or {}
    return {name for name, each in properties.items() if isinstance(each, Mapping) and each.get("writeOnly")}


def _preference(kind: str) -> int:
    words = ("application/json", "+json", "multipart/", "x-www-form", "image/", "text/")
    return next((number for number, word in enumerate(words) if word in kind), len(words))


def _form(value: Mapping[str, Any], *, is_multipart: bool) -> dict[str, str]:
    files = [
        f'({key!r}, ("picture.jpg", PICTURE, "image/jpeg"))'
        for key, each in value.items()
        for one in (each if isinstance(each, list) else [each])
        if one is RAW
    ]
    fields = {key: each for key, each in value.items() if not _holds(each)}
    data = {key: each if isinstance(each, str | list) else _word(each) for key, each in fields.items()}
    if not is_multipart:
        return {"data": _code(data)}
    return {**({"data": _code(data)} if data else {}), "files": f"[{', '.join(files)}]"}


def _holds(value: Any) -> bool:
    return any(each is RAW for each in (value if isinstance(value, list) else [value]))


def _word(value: Any) -> str:
    """As an address or a header has it."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return (
        ",".join(map(_word, value))
        if isinstance(value, list)
        else value
        if isinstance(value, str)
        else json.dumps(value)
    )


def _dict(rows: Iterable[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in rows) + "}"


def _code(value: Any) -> str:
    """The value as Python code; pictures by name."""
    if value is RAW or value is BASE64:
        return "base64.b64encode(PICTURE).decode()"
    if isinstance(value, dict):
        return _dict((repr(key), _code(each)) for key, each in value.items())
    return f"[{', '.join(map(_code, value))}]" if isinstance(value, list) else repr(value)
