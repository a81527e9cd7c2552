"""From the page's form to a question: what is guessed from a file, and what somebody has chosen."""

from __future__ import annotations

from typing import Any

from certes import strictjson
from certes.activations import activation
from certes.errors import InputError
from certes.guess import Guess
from certes.guess import guess as guessed
from certes.weights import read_weights
from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from certes_service.questions import assemblies, certificates, projections, trainings
from certes_service.questions.base import Limits, Question, clip
from certes_service.settings import Settings

#: Choices of the form; the table of the library has more, which can be typed in the API.
ACTIVATIONS = ("tanh", "relu", "sigmoid", "leaky_relu:0.01", "gelu", "silu", "elu", "softplus", "hardtanh", "identity")
FORMS = {
    "rate": "rate: x' = -x + phi(W x + u)",
    "hopfield": "Hopfield: x' = -x + W phi(x) + u",
    "torch-rnn": "torch.nn.RNN",
    "lure": "Lur'e: x' = A x + B phi(C x + u)",
}
#: Stands among the activations for: none of them, but these slopes.
SLOPES = "slopes"
CONDITIONS = ("auto", "absolute", "symmetric", "product", "singular", "lure")
_MOST_TENSORS = 200


class Form:
    """The fields of a request, and its file.

    Args:
        values: field -> text.
        weights: bytes of the file; None: none was sent.
        name: of the file.
    """

    def __init__(self, values: dict[str, str], weights: bytes | None, name: str) -> None:
        self.values, self.weights, self.name = values, weights, name

    @classmethod
    async def read(cls, request: Request, settings: Settings) -> Form:
        """Read a multipart form.

        Raises:
            InputError: it is none.
        """
        try:
            form = await request.form(max_files=1, max_fields=20, max_part_size=settings.max_json_bytes)
        except HTTPException as error:
            given = clip(str(error.detail))
            raise InputError("form", given, "a well-formed form", "malformed-multipart") from None
        try:
            values = {name: value for name, value in form.items() if isinstance(value, str)}
            file = form.get("weights")
            if not isinstance(file, UploadFile):
                return cls(values, None, "weights.safetensors")
            data = await file.read()
            name = "".join(letter for letter in (file.filename or "").rsplit("/", 1)[-1] if letter.isprintable())[:255]
            return cls(values, data or None, name or "weights.safetensors")
        finally:
            await form.close()

    def text(self, name: str) -> str:
        """A field without spaces around it; empty if it was left empty."""
        return self.values.get(name, "").strip()

    def needed(self) -> bytes:
        """The file.

        Raises:
            InputError: there is none.
        """
        if self.weights is None:
            raise InputError("weights", "no file", "a safetensors file", "missing-value")
        return self.weights


def guess(form: Form, settings: Settings) -> dict[str, Any]:
    """What the form offers for a file.

    Returns:
        ``tensors`` (square matrices, likely ones first), ``all`` (every tensor), the guessed ``chosen`` (role ->
        tensor), ``form``, ``activation``, ``step``, ``reasons`` for the guesses, and ``detail``.

    Raises:
        InputError: no weight file, or one beyond the limits.
    """
    weights = Limits.of(settings).read(form.needed(), form.name)
    found = guessed(weights)
    spec = found.spec or {}
    chosen = dict(spec.get("tensors", {}))
    names = list(dict.fromkeys(([chosen["W"]] if "W" in chosen else []) + list(found.recognition.candidates)))
    return {
        "tensors": names[:_MOST_TENSORS],
        "all": list(weights.tensors)[:_MOST_TENSORS],
        "chosen": chosen,
        "form": str(spec.get("form", "rate")),
        "activation": str(spec.get("activation", "tanh")),
        "step": "" if spec.get("step") is None else f"{spec['step']:g}",
        "reasons": found.reasons,
        "detail": _told(found, len(names)),
        "nothing": found.spec is None,
    }


def _told(found: Guess, count: int) -> str:
    """What was recognised, in a sentence."""
    kind = found.recognition.kind
    if kind == "matrices" and found.spec is not None:
        if found.spec["form"] == "lure":
            return "a Lur'e system: three matrices A, B and C"
        return "one square matrix was found" if count == 1 else f"{count} square matrices were found"
    detail = found.recognition.detail
    return detail.partition(";")[0] if kind == "torch-rnn" and found.recognition.spec is not None else detail


def question(form: Form) -> Question:
    """The question that the form asks.

    Raises:
        InputError: naming the field.
    """
    weights, name = form.needed(), form.name
    if form.text("what") == "training":
        return trainings.question(_written(form, "architecture and plan"), weights, name)
    read_weights(weights)  # what is wrong with the file is said first
    if form.text("what") == "assembly":
        return assemblies.question(_written(form, "modules and couplings"), weights, name)
    spec = _spec(form)
    if form.text("what") == "project":
        return projections.question(spec, weights, name)
    return certificates.question(spec, weights, name)


def _written(form: Form, entries: str) -> dict[str, Any]:
    """A question that was typed as JSON."""
    text = form.text("spec").encode("utf-8", "replace")
    given = strictjson.parse(text, "spec", max_bytes=2**20, max_depth=12)
    if not isinstance(given, dict):
        raise InputError("spec", "JSON that is no object", f"a JSON object with {entries}", "wrong-type")
    return given


def _spec(form: Form) -> dict[str, Any]:
    kind = form.text("form") or "rate"
    spec: dict[str, Any] = {"form": kind, "tensors": _tensors(form, kind)}
    if form.text("activation") == SLOPES:
        spec["slope"] = [_number(end, form.text(end)) for end in ("low", "high")]
    else:
        spec["activation"] = activation(form.text("activation") or "tanh").name
    if kind == "lure" and form.text("time") == "map":
        spec["discrete"] = True
    elif kind != "torch-rnn" and (step := form.text("step")):
        spec["step"] = "max" if step.lower() == "max" and form.text("what") != "project" else _number("step", step)
    if kind in ("rate", "hopfield") and (tau := form.text("tau")):
        spec["tau"] = _number("tau", tau)
    if form.text("condition") not in ("", "auto"):
        spec["condition"] = form.text("condition")
    for name in ("rate", "seconds"):
        if form.text(name):
            spec[name] = _number(name, form.text(name))
    return spec


def _tensors(form: Form, kind: str) -> dict[str, str]:
    if kind == "torch-rnn" and not form.text("tensor"):
        return {}
    fields = {"A": "A", "B": "B", "C": "C"} if kind == "lure" else {"W": "tensor"}
    for field in fields.values():
        if not form.text(field):
            raise InputError(field, "nothing", "the name of a matrix of the file", "missing-value")
    return {role: form.text(field) for role, field in fields.items()}


def _number(field: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(field, clip(repr(text), 80), "a number, such as 0.1", "wrong-type") from None


def projection_of(parts: dict[str, Any], weights: bytes, name: str) -> Question:
    """The nearest certified weights to those of a certificate's question.

    Args:
        parts: of that question.
        weights: its file.
        name: of the file.

    Raises:
        InputError: it cannot be projected.
    """
    return projections.question(_said(parts), weights, name)


def largest_step_of(parts: dict[str, Any], weights: bytes, name: str) -> Question:
    """The largest step that can be certified, of the network of a certificate's question.

    Args:
        parts: of that question.
        weights: its file.
        name: of the file.

    Raises:
        InputError: it has no steps.
    """
    return certificates.question(_said(parts) | {"step": "max"}, weights, name)


def _said(parts: dict[str, Any]) -> dict[str, Any]:
    """The system of a question, as somebody would write it."""
    return {entry: value for entry, value in parts["spec"].items() if value is not None and value is not False}
