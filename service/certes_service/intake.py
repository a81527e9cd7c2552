"""From a request to a question: multipart or all-JSON bodies become a spec and the bytes of a weight file."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from certes import strictjson
from certes.errors import InputError, TooLargeError
from certes.weights import pack
from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from certes_service.problems import Unsupported
from certes_service.questions.base import Question, clip
from certes_service.settings import Settings

#: Nesting of a JSON body: object, tensors, name, rows, columns, and some air.
_MAX_DEPTH = 12
_BITS = {"F16": 16, "BF16": 16, "F32": 32, "F64": 64, "I64": 64, "I32": 32, "BOOL": 8}
_TENSOR_KEYS = {"dtype", "shape", "data"}
_EXPECTED_TENSOR = "nested lists of numbers, or an object with dtype, shape and data (base64)"

Make = Callable[[dict[str, Any], bytes, str], Question]


@dataclass(frozen=True)
class Body:
    """The parts of a request, whatever it was encoded as.

    Attributes:
        values: part name -> JSON value, or text, or bytes of a file part.
        multipart: whether it came as multipart/form-data.
        names: part name -> file name, for file parts that have one.
    """

    values: Mapping[str, Any]
    multipart: bool
    names: Mapping[str, str] = field(default_factory=dict)


async def read_body(request: Request, settings: Settings, allowed: set[str], json_parts: set[str]) -> Body:
    """Read a request body.

    Args:
        request: the request; its length is already limited.
        settings: limits.
        allowed: names of parts (or keys) that this call knows.
        json_parts: the parts of a multipart body that are JSON.

    Raises:
        InputError: malformed, a part twice or unknown. Unsupported: another media type.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        data = await request.body()
        body = Body(await run_in_threadpool(parse_json, data, "body", settings.max_json_bytes), False)
    elif media_type == "multipart/form-data":
        body = await _read_form(request, settings, json_parts)
    else:
        raise Unsupported(
            "Content-Type", clip(repr(media_type)), "application/json or multipart/form-data", "unsupported-media-type"
        )
    for name in body.values:
        if name not in allowed:
            raise InputError(name, "an unknown part of the body", f"only {', '.join(sorted(allowed))}", "unknown-field")
    return body


def parse_json(data: bytes, what: str, limit: int) -> dict[str, Any]:
    """A JSON object from a stranger; a number that is not finite is named by its path.

    Raises:
        InputError: malformed, too deep, a key twice, not finite. TooLargeError: beyond the limit.
    """
    try:
        value = strictjson.parse(data, what, max_bytes=limit, max_depth=_MAX_DEPTH)
    except InputError as error:
        if error.slug == "not-finite" and (path := _first_not_finite(json.loads(data))) is not None:
            raise InputError(path, error.given, error.expected, error.slug) from None
        raise
    if not isinstance(value, dict):
        raise InputError(what, f"JSON of type {type(value).__name__}", "a JSON object", "wrong-type")
    return value


def _first_not_finite(value: Any, path: str = "") -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        # positions inside a matrix are left out: "tensors.W" is the field
        inner = path if isinstance(key, int) else f"{path}.{key}" if path else str(key)
        if (found := _first_not_finite(item, inner)) is not None:
            return found
    return None


async def _read_form(request: Request, settings: Settings, json_parts: set[str]) -> Body:
    try:
        form = await request.form(max_files=16, max_fields=32, max_part_size=settings.max_json_bytes)
    except HTTPException as error:
        raise InputError(
            "body", clip(str(error.detail)), "well-formed multipart/form-data", "malformed-multipart"
        ) from None
    try:
        return await _parts(form, settings, json_parts)
    finally:
        await form.close()


async def _parts(form: FormData, settings: Settings, json_parts: set[str]) -> Body:
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, part in form.multi_items():
        if name in values:
            raise InputError(clip(name), "this part twice", "each part once", "duplicate-key")
        data: str | bytes
        if isinstance(part, UploadFile):
            if name in json_parts and (part.size or 0) > settings.max_json_bytes:
                raise TooLargeError(name, f"{part.size} bytes of JSON", settings.max_json_bytes)
            data = await part.read()
            if name_of := _base_name(part.filename):
                names[name] = name_of
        else:
            data = part
        if name in json_parts:
            raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
            values[name] = await run_in_threadpool(parse_json, raw, name, settings.max_json_bytes)
        else:
            values[name] = data
    return Body(values, True, names)


def _base_name(given: str | None) -> str:
    """The last part of a file name, printable and of a sane length; the rest is the sender's business."""
    last = re.split(r"[/\\]", given or "")[-1]
    return "".join(letter for letter in last if letter.isprintable())[:255]


def required(body: Body, name: str, expected: str) -> Any:
    """A part that must be there.

    Raises:
        InputError: it is not.
    """
    if body.values.get(name) is None:
        raise InputError(name, "nothing", expected, "missing-value")
    return body.values[name]


def as_object(value: Any, field: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: something else.
    """
    if not isinstance(value, dict):
        raise InputError(field, f"JSON of type {type(value).__name__}", "a JSON object", "wrong-type")
    return value


def as_file(value: Any, field: str, multipart: bool) -> bytes:
    """The bytes of a file part; in a JSON body files are base64.

    Raises:
        InputError: a form field where a file was expected, or not base64.
    """
    if isinstance(value, bytes):
        return value
    if multipart:
        raise InputError(field, "a form field without a file name", "a file part (filename=...)", "malformed-multipart")
    return _base64(value, field)


def as_flag(value: Any, field: str) -> bool:
    """A boolean, as JSON or as the text of a form field.

    Raises:
        InputError: neither.
    """
    known = {True: True, False: False, "true": True, "false": False, None: False}
    if not isinstance(value, (bool, str, type(None))) or value not in known:
        raise InputError(field, clip(repr(value)), "true or false", "wrong-type")
    return known[value]


def about(
    make: Make, file: str = "weights", whole: Callable[[Body, bytes], bytes] = lambda _, file: file
) -> Callable[[Body], Question]:
    """The question of a body with ``spec`` and a file or ``tensors``, made by a kind's ``question``.

    Args:
        make: the kind's.
        file: name of the file's part.
        whole: the file with those of other parts.
    """

    def of(body: Body) -> Question:
        given = as_object(required(body, "spec", "the question as a JSON object"), "spec")
        name = body.names.get(file, f"{file}.safetensors")
        try:
            weights = whole(body, _needed(weights_of(body, file), body, file))
        except InputError:
            make(given, b"", name)  # what is wrong with the spec is said first
            raise
        return make(given, weights, name)

    return of


def _needed(weights: bytes | None, body: Body, part: str) -> bytes:
    if weights is None:
        field, expected = (part, "a safetensors file") if body.multipart else ("tensors", "tensors by name")
        raise InputError(field, "nothing", expected, "missing-value")
    return weights


def weights_of(body: Body, part: str = "weights") -> bytes | None:
    """The file of a body, be it a file part or tensors inline; None: neither.

    Raises:
        InputError: both, or what is neither.
    """
    file, inline = body.values.get(part), body.values.get("tensors")
    if file is not None and inline is not None:
        raise InputError(part, f"both {part} and tensors", "one of the two", "conflict")
    if inline is not None:
        return weights_from_json(inline)
    return None if file is None else as_file(file, part, body.multipart)


def weights_from_json(tensors: Any) -> bytes:
    """Inline tensors as the bytes of a safetensors file: same tensors, same bytes.

    Args:
        tensors: name -> nested lists of numbers (float64), or ``{"dtype": "F32", "shape": [2, 2], "data": base64}``
            with little-endian bytes in C order.

    Raises:
        InputError: naming ``tensors.NAME``.
    """
    given = as_object(tensors, "tensors")
    if not given:
        raise InputError("tensors", "no tensors", "at least one", "missing-value")
    return pack({name: _inline(f"tensors.{clip(name, 80)}", given[name]) for name in sorted(given)})


def _inline(field: str, value: Any) -> tuple[str, list[int], bytes]:
    if isinstance(value, list):
        try:
            array = np.array(value, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            given = "lists that are not a rectangular array of numbers"
            raise InputError(field, given, _EXPECTED_TENSOR, "wrong-shape") from None
        if not _only_numbers(value):
            raise InputError(field, "a list with something else than numbers", _EXPECTED_TENSOR, "wrong-type")
        return "F64", list(array.shape), array.astype("<f8").tobytes()
    if not isinstance(value, dict) or set(value) != _TENSOR_KEYS:
        raise InputError(field, clip(f"{type(value).__name__}"), _EXPECTED_TENSOR, "wrong-type")
    dtype, shape = value["dtype"], value["shape"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise InputError(f"{field}.dtype", clip(repr(dtype)), f"one of {', '.join(_BITS)}", "wrong-dtype")
    if not isinstance(shape, list) or not all(type(k) is int and 0 <= k < 2**40 for k in shape) or len(shape) > 8:
        raise InputError(f"{field}.shape", clip(repr(shape)), "a list of counts", "wrong-shape")
    data = _base64(value["data"], f"{field}.data")
    if len(data) * 8 != math.prod(shape) * _BITS[dtype]:
        expected = f"{math.prod(shape) * _BITS[dtype] // 8} bytes for {dtype} of shape {shape}"
        raise InputError(f"{field}.data", f"{len(data)} bytes", expected, "wrong-shape")
    return dtype, shape, data


def _only_numbers(value: list[Any]) -> bool:
    """numpy would read "1" and true as numbers too."""
    if value and isinstance(value[0], list):
        return all(isinstance(row, list) and _only_numbers(row) for row in value)
    return all(type(item) in (int, float) for item in value)


def _base64(value: Any, field: str) -> bytes:
    if not isinstance(value, str):
        raise InputError(field, f"JSON of type {type(value).__name__}", "base64 text", "wrong-type")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(field, "text that is not base64", "base64 (RFC 4648 section 4)", "malformed-base64") from None
