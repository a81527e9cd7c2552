"""How a question is asked over HTTP, and what the call answers: the answer itself, or the job that goes on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from certes.errors import InputError
from fastapi import Request, Response
from starlette.datastructures import Headers

from certes_service import problems
from certes_service.intake import Body, as_flag, read_body
from certes_service.jobs.desk import Answered, Asking, Desk, wait_of
from certes_service.jobs.documentation import KEY_PATTERN
from certes_service.jobs.job import PRIORITIES, Job
from certes_service.questions.base import Question, clip
from certes_service.tenancy.callers import allow

#: Parts of a body that say how something is asked, and nothing about what is asked.
MANNER = frozenset({"store", "priority", "deadline"})
#: Parts that ask about one network or assembly.
PARTS = frozenset({"spec", "weights", "tensors"})
#: Longest deadline, in seconds: a year.
_LONGEST = 366 * 86400.0


async def respond(
    request: Request, desk: Desk, scope: str, make: Callable[[Body], Question], parts: Iterable[str] = PARTS,
    wait: float | None = None, kept: bool = False,
) -> Response:  # fmt: skip
    """Read a question, ask it, and answer the call.

    Args:
        request: its body is not read yet.
        desk: that answers.
        scope: what the caller needs.
        make: the question of a body; called in a thread.
        parts: names of the parts that the body may have, besides :data:`MANNER`.
        wait: seconds to wait where the caller says nothing; None: as the service is set.
        kept: what comes of it has to be kept: ``store: false`` is refused.

    Raises:
        InputError: a body that is no question. What :meth:`Desk.ask` raises.
    """
    caller = allow(request, scope)
    body = await read_body(request, desk.settings, {*parts, *MANNER}, {"spec"})
    asking, preferred = asking_of(request.headers, body, wait)
    if kept and not asking.store:
        raise InputError("store", "false", "true, or nothing: what is trained is a job, and is kept", "unsupported")
    question = await desk.in_thread(make, body)
    found = await desk.ask(caller, question, asking)
    applied = {} if preferred is None else {"Preference-Applied": preferred}
    return await answered(found, desk, applied)


async def answered(found: Answered | Job, desk: Desk, headers: dict[str, str]) -> Response:
    """The answer (200), or the job that goes on (202); a job that somebody cancelled is a conflict."""
    if isinstance(found, Answered):
        return await as_json(found.answer, desk, headers=headers)
    if found.state == "cancelled":
        detail = "The job was cancelled before it came to an answer."
        return problems.problem(409, "cancelled", detail, headers | {"Content-Location": found.href})
    more = {"Location": found.href, "Retry-After": "1"}
    return await as_json(await desk.told(found), desk, 202, headers | more)


async def as_json(value: Any, desk: Desk, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON, written in a thread: a certificate of a large network is long, and others wait for the loop."""
    text = await desk.in_thread(lambda: json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    return Response(text, status, headers, "application/json")


def asking_of(headers: Headers, body: Body, wait: float | None = None) -> tuple[Asking, str | None]:
    """How something is asked, and which preference was followed.

    Args:
        headers: of the request: ``Prefer`` (RFC 7240) and ``Idempotency-Key``.
        body: its parts ``store``, ``priority`` and ``deadline``.
        wait: seconds to wait where the caller says nothing.

    Raises:
        InputError: naming the header or the part.
    """
    asked = wait_of(",".join(headers.getlist("prefer")))
    preferred = None if asked is None else "respond-async" if asked == 0 else f"wait={asked:.0f}"
    store = body.values.get("store") is None or as_flag(body.values["store"], "store")
    priority = _number(body, "priority", whole=True)
    if priority is not None and priority not in PRIORITIES:
        expected = f"a whole number from {PRIORITIES[0]} to {PRIORITIES[-1]}"
        raise InputError("priority", f"{priority:.17g}", expected, "out-of-range")
    deadline = _number(body, "deadline")
    if deadline is not None and not 0 < deadline <= _LONGEST:
        expected = f"seconds from now, more than 0 and at most {_LONGEST:.0f}"
        raise InputError("deadline", f"{deadline:.17g}", expected, "out-of-range")
    key = _idempotency_key(headers.getlist("idempotency-key"))
    asking = Asking(wait if asked is None else asked, key, int(priority or 0), deadline, store)
    return asking, preferred


def _number(body: Body, name: str, *, whole: bool = False) -> float | None:
    """A number, as JSON or as the text of a form field."""
    value = body.values.get(name)
    if value is None:
        return None
    expected = "a whole number" if whole else "a number"
    if isinstance(value, str) and body.multipart:
        try:
            value = float(value[:40])
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(name, clip(repr(body.values[name]), 80), expected, "wrong-type")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found) or (whole and found != int(found)):
        raise InputError(name, clip(repr(body.values[name]), 80), expected, "wrong-type")
    return found


def _idempotency_key(given: list[str]) -> str | None:
    if not given:
        return None
    key = given[0]
    if len(given) > 1 or re.fullmatch(KEY_PATTERN[1:-1], key) is None:
        expected = "one key of 1 to 255 visible characters of ASCII"
        raise InputError("Idempotency-Key", clip(repr(given), 80), expected, "malformed-key")
    return key
