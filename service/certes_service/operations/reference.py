"""The API in the documentation, made from the document that the service answers with.

python -m certes_service.operations.reference docs/service

writes ``openapi.json``, the frozen document, and ``api.md``. A test fails while the frozen one is not what is served,
or while CHANGELOG.md does not name its digest: no call changes without somebody saying so.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from certes_service.settings import Settings

_METHODS = ("get", "post", "patch", "delete")
_HEAD = """# API reference

<!-- Made by `python -m certes_service.operations.reference docs/service`. Change the code, not this page. -->

Every call, as `GET /openapi.json` describes it ([openapi.json](openapi.json) is that document, frozen). Bodies are
JSON or `multipart/form-data`; errors are RFC 9457 problem details with a stable `type` (`urn:certes:error:SLUG`), and
where it makes sense `field`, `given` and `expected`. With keys on, calls want `Authorization: Bearer KEY`
([keys](keys.md)); how questions become jobs stands in [jobs](jobs.md).
"""


def document() -> dict[str, Any]:
    """The OpenAPI document, of a service that is built and not started."""
    from certes_service.app import build

    with tempfile.TemporaryDirectory() as folder:
        app = build(Settings.read(data=Path(folder)))
        try:
            found: dict[str, Any] = json.loads(json.dumps(app.openapi()))
        finally:
            app.state.desk.works.stop(0.0)
    return found


def frozen(found: Mapping[str, Any]) -> str:
    """The document as it is kept: without the version, which changes with every release."""
    info = {name: value for name, value in found["info"].items() if name != "version"}
    return json.dumps({**found, "info": info}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def digest(text: str) -> str:
    """sha256 of the frozen document, which the changelog names."""
    return hashlib.sha256(text.encode()).hexdigest()


def page(found: Mapping[str, Any]) -> str:
    """The reference, in Markdown."""
    parts = [_HEAD]
    for path, calls in sorted(found["paths"].items()):
        for method in _METHODS:
            if method in calls:
                parts.append("\n".join(_call(method, path, calls[method])))
    schemas = found["components"]["schemas"]
    parts.append("## Shapes\n")
    parts += ["\n".join(_shape(name, schemas[name])) for name in sorted(schemas)]
    return "\n".join(parts) + "\n"


def _call(method: str, path: str, call: Mapping[str, Any]) -> Iterator[str]:
    yield f"## `{method.upper()} {path}`\n"
    yield call["description"].strip() + "\n"
    parameters = call.get("parameters", [])
    if parameters:
        yield "| parameter | in | | |\n| --- | --- | --- | --- |"
        for entry in parameters:
            needed = "required" if entry.get("required") else ""
            said = entry.get("description", "").replace("|", "\\|")
            yield f"| `{entry['name']}` | {entry['in']} | {_kind(entry.get('schema', {}))} {needed} | {said} |"
        yield ""
    for media, content in call.get("requestBody", {}).get("content", {}).items():
        yield f"Body, `{media}`: {_kind(content['schema'])}\n"
        example = content.get("example") or next(iter(content.get("examples", {"": {}}).values())).get("value")
        if example is not None:
            yield f"```json\n{json.dumps(_short(example), indent=1)}\n```\n"
    yield "| status | |\n| --- | --- |"
    for status, answer in sorted(call["responses"].items()):
        media = ", ".join(f"`{name}`" for name in answer.get("content", {}))
        shapes = {_kind(entry.get("schema", {})) for entry in answer.get("content", {}).values()} - {""}
        said = answer.get("description", "").replace("|", "\\|")
        yield f"| {status} | {said} {media} {', '.join(sorted(shapes))} |"
    yield ""


def _shape(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    if said := schema.get("description"):
        yield said.partition("\n\nAttributes:")[0].strip() + "\n"
    properties = schema.get("properties", {})
    if properties:
        needed = set(schema.get("required", ()))
        yield "| member | | |\n| --- | --- | --- |"
        for entry, value in properties.items():
            mark = "" if entry in needed else "optional"
            said = value.get("description", "").replace("|", "\\|").replace("\n", " ")
            yield f"| `{entry}` | {_kind(value)} {mark} | {said} |"
        yield ""


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(_kind(entry) for entry in schema[word]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = str(schema.get("type", ""))
    if kind == "array":
        return f"list of {_kind(schema.get('items', {})) or 'values'}"
    return "file" if schema.get("format") == "binary" else kind


def _short(value: Any) -> Any:
    """An example without the long texts in it."""
    if isinstance(value, dict):
        return {name: _short(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_short(entry) for entry in value]
    return value[:40] + "..." if isinstance(value, str) and len(value) > 80 else value


def write(folder: Path) -> str:
    """Write both files; returns the digest of the frozen document."""
    found = document()
    text = frozen(found)
    (folder / "openapi.json").write_text(text, encoding="utf-8")
    (folder / "api.md").write_text(page(found), encoding="utf-8")
    return digest(text)


if __name__ == "__main__":
    print(f"API document: sha256 {write(Path(sys.argv[1]))}")
