"""
Check what children read and wrote against the JSON schema of its revision.

The schemas are the specification's own, one directory per revision, and not part of
this repository: C{MCP_SCHEMA_DIRECTORY} or C{../shared/mcp-schema} says where.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
from jsonschema import (  # type: ignore[import-untyped] # it has no stubs
    Draft7Validator,
    Draft202012Validator,
)
from referencing import Registry, Resource

from tests.conformance.record import READ, WRITTEN

TOP: Final = Path(__file__).parents[2]
VARIABLE: Final = "MCP_SCHEMA_DIRECTORY"
MODERN: Final = "2026-07-28"
LATEST_LEGACY: Final = "2025-11-25"
VERSION_MEMBER: Final = "io.modelcontextprotocol/protocolVersion"
LONGEST_TEXT: Final = 600


def schema_directory() -> Path | None:
    """
    @return: where the schemas are, if anywhere.
    """
    told = os.environ.get(VARIABLE)
    directory = Path(told) if told else TOP.parent / "shared" / "mcp-schema"
    return directory if (directory / MODERN / "schema.json").is_file() else None


@attrs.frozen
class Line:
    """
    A recorded line.

    @ivar process: the name of the record.
    @ivar way: C{read} or C{written}, as the child sees it.
    """

    process: str
    way: str
    text: str


def read_records(directory: Path) -> Iterator[list[Line]]:
    """
    @return: the lines of each process, in order.
    """
    for path in sorted(directory.glob("*.jsonl")):
        entries = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
        yield [Line(path.stem, entry["way"], entry["line"]) for entry in entries]


@attrs.frozen
class Violation:
    """
    A line that its schema does not allow, and why.

    @ivar place: where in the message, members and indexes with slashes between them.
    """

    line: Line
    reason: str
    place: str = ""

    def __str__(self) -> str:
        text = self.line.text[:LONGEST_TEXT]
        return f"{self.line.process} {self.line.way}: {self.reason}\n    {text}"


class Revision:
    """The schema of one revision."""

    def __init__(self, path: Path) -> None:
        schema = json.loads(path.read_text("utf-8"))
        self._key = "$defs" if "$defs" in schema else "definitions"
        self.definitions: dict[str, Any] = schema[self._key]
        self._class: Any = (
            Draft202012Validator if self._key == "$defs" else Draft7Validator
        )
        self._registry: Any = Registry().with_resource(
            "mcp:schema", Resource.from_contents(schema)
        )
        self._validators: dict[str, Any] = {}
        self._of_method: dict[str, str] = {}
        self._of_error: dict[int, str] = {}
        for name, definition in self.definitions.items():
            properties = definition.get("properties", {})
            method = properties.get("method", {}).get("const")
            # The unions name no method, the typed messages each name one.
            if isinstance(method, str):
                self._of_method[method] = name
            for part in properties.get("error", {}).get("allOf", ()):
                code = part.get("properties", {}).get("code", {}).get("const")
                if code is not None:
                    self._of_error[code] = name

    def errors(self, name: str, value: object) -> Iterator[tuple[str, str]]:
        """
        @param name: of a definition.
        @return: where the value is wrong, and how.
        """
        validator = self._validators.get(name)
        if validator is None:
            reference = {"$ref": f"mcp:schema#/{self._key}/{name}"}
            validator = self._class(reference, registry=self._registry)
            self._validators[name] = validator
        for error in validator.iter_errors(value):
            where = "/".join(str(step) for step in error.absolute_path)
            yield where, f"{name} at /{where}: {error.message[:LONGEST_TEXT]}"

    def message_errors(
        self, message: Any, answered: str | None
    ) -> Iterator[tuple[str, str]]:
        """
        @param message: one message.
        @param answered: the method that a response answers, if that is known.
        @return: where it is wrong, and how.
        """
        if "method" in message:
            other = "JSONRPCRequest" if "id" in message else "JSONRPCNotification"
            yield from self.errors(
                self._of_method.get(message["method"], other), message
            )
        elif "error" in message:
            code = message["error"].get("code")
            general = self._first("JSONRPCErrorResponse", "JSONRPCError")
            yield from self.errors(self._of_error.get(code, general), message)
        else:
            envelope = self._first("JSONRPCResultResponse", "JSONRPCResponse")
            yield from self.errors(envelope, message)
            name = self._result(answered, message.get("result"))
            if name is not None:
                yield from self.errors(name, message.get("result"))

    def _first(self, *names: str) -> str:
        return next(name for name in names if name in self.definitions)

    def _result(self, method: str | None, result: Any) -> str | None:
        kind = result.get("resultType") if isinstance(result, dict) else None
        if kind == "input_required" and "InputRequiredResult" in self.definitions:
            return "InputRequiredResult"
        request = self._of_method.get(method or "", "")
        name = request.removesuffix("Request") + "Result"
        return name if request and name in self.definitions else None


class Checker:
    """All revisions."""

    def __init__(self, directory: Path) -> None:
        """
        @param directory: with one directory per revision.
        """
        self._revisions = {
            path.parent.name: Revision(path) for path in directory.glob("*/schema.json")
        }

    def check(self, lines: Iterable[Line]) -> Iterator[Violation]:
        """
        @param lines: of one process, in order.
        @return: what its revision does not allow. Modern requests and their answers
            are judged by theirs, everything else by what the handshake agreed on.
        """
        agreed = LATEST_LEGACY
        asked: dict[tuple[str, Any], tuple[str, str]] = {}
        for line in lines:
            try:
                message = json.loads(line.text)
            except ValueError as error:
                yield Violation(line, f"not JSON: {error}")
                continue
            if not isinstance(message, dict):
                yield Violation(line, "not an object")
                continue
            other = WRITTEN if line.way == READ else READ
            revision, method = agreed, None
            if "method" in message:
                revision = self._of_request(message, agreed)
                if "id" in message:
                    key = (line.way, repr(message["id"]))
                    asked[key] = (message["method"], revision)
            else:
                key = (other, repr(message.get("id")))
                if key not in asked:
                    yield Violation(line, "answers nothing that was asked")
                    continue
                method, revision = asked.pop(key)
                if method == "initialize" and "result" in message:
                    agreed = revision = message["result"]["protocolVersion"]
            errors = self._revisions[revision].message_errors(message, method)
            for place, reason in errors:
                yield Violation(line, f"{revision}: {reason}", place)
            if revision == MODERN and line.way == WRITTEN and "id" in message:
                if "method" in message:
                    yield Violation(line, f"{MODERN}: a request from a server")

    def _of_request(self, message: Any, agreed: str) -> str:
        params = message.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        if not isinstance(meta, dict):
            meta = {}
        modern = VERSION_MEMBER in meta or (
            "io.modelcontextprotocol/subscriptionId" in meta
        )
        if modern or message["method"] == "server/discover":
            return MODERN
        return agreed
