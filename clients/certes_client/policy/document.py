"""The policy file ``certes.toml``: which weights, what network they are, and what must hold of it.

Paths are relative to the file, and never lead out of its folder:

    certificates = ".certes"                  # folder of the certificates

    [trust]
    keys = ["keys/release.pub.pem"]           # who must have signed; none: nobody
    revoked = ["3f0c..."]                     # ids of keys that count no longer

    [models.controller]
    file = "models/controller.safetensors"
    form = "rate"
    tensors = { W = "rnn.weight" }
    activation = "tanh"
    step = 0.05
    rate_at_least = 0.1
    allowed_regression = 0.01                 # against the certificate that was accepted last

    [models.brain]
    assembly = "models/brain.yaml"            # a network of networks, or the folder that a training has written
    rate_at_least = 0.1
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from certes.errors import InputError
from certes.spec import SystemSpec, input_error
from pydantic import BaseModel, ConfigDict, Field, ValidationError

NAME = "certes.toml"
_LARGEST = 2**20
#: Entries of a model that describe its network: those of :class:`certes.spec.SystemSpec`.
SYSTEM = ("form", "tensors", "activation", "slope", "step", "tau", "discrete", "input_tensor", "bias_tensor", "inputs")
#: Entries that say nothing of an assembly: its description says what it is, and its certificate claims no radius.
_SINGLE = ("file", "system", *SYSTEM, "condition", "rate", "weight_radius_at_least")

_DESCRIBED = "nothing of the kind beside assembly, which has a description of its own"
_RADIUS = (
    "none beside assembly, whose certificate claims no radius; demand it of each of its networks "
    "as a model of its own, with file and form"
)

Text = Annotated[str, Field(min_length=1, max_length=4096)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Trust(_Strict):
    """Whose signature a certificate needs.

    Attributes:
        keys: Ed25519 public keys (PEM), as paths beside the policy; one of them must have signed. None: no demand.
        revoked: ids of keys whose signatures count no longer.
    """

    keys: Annotated[list[Text], Field(max_length=16)] = []
    revoked: Annotated[list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]], Field(max_length=1000)] = []


class ModelPolicy(_Strict):
    """One network or assembly, and what must hold of it.

    Attributes:
        file: the weights of a network, as a path beside the policy; None: an assembly.
        system: what network they are.
        assembly: the description of an assembly, or a folder that a training has written, likewise.
        condition: the theorem to use, or ``auto``.
        seconds: time limit of the search; None: no limit.
        rate: what is asked for: ``best``, or a number. None: ``best``, unless a weight radius is demanded with a rate
            (or factor): then that, for less than the best leaves room for the weights to move.
        rate_at_least: continuous time, 1/(unit of time).
        factor_at_most: maps, per step.
        weight_radius_at_least: spectral norm by which the weights may move with the proof still valid.
        step_margin_at_least: the largest certified Euler step over the step that is run, or over ``step_used``.
        step_used: the step that is run, where the network is described in continuous time.
        allowed_regression: part of the rate (or of 1 - factor) that may be lost against the certificate accepted last.
    """

    file: Text | None = None
    system: SystemSpec | None = None
    assembly: Text | None = None
    condition: Text = "auto"
    seconds: Positive | None = None
    rate: Positive | Literal["best"] | None = None
    rate_at_least: Positive | None = None
    factor_at_most: Annotated[float, Field(gt=0, le=1)] | None = None
    weight_radius_at_least: Positive | None = None
    step_margin_at_least: Positive | None = None
    step_used: Positive | None = None
    allowed_regression: Annotated[float, Field(ge=0, lt=1)] | None = None

    @property
    def source(self) -> str:
        """The file that it is about, as the policy names it."""
        return self.assembly or self.file or ""

    @property
    def asked(self) -> float | Literal["best"]:
        """The rate or factor to ask the search for."""
        if self.rate is not None:
            return self.rate
        wanted = self.rate_at_least if self.rate_at_least is not None else self.factor_at_most
        return "best" if self.weight_radius_at_least is None or wanted is None else wanted


class Policy(_Strict):
    """What a repository promises.

    Attributes:
        certificates: folder of the certificates, as a path beside the policy.
        trust: whose signature counts.
        models: name -> network and what must hold of it, in the order of the file.
    """

    certificates: Text = ".certes"
    trust: Trust = Trust()
    models: Annotated[dict[ModelName, ModelPolicy], Field(min_length=1, max_length=1000)]

    @classmethod
    def parse(cls, text: bytes, name: str = NAME) -> Self:
        """From the text of a file.

        Raises:
            InputError: naming the entry, as ``certes.toml: models.controller.step``.
        """
        if len(text) > _LARGEST:
            raise InputError(name, f"{len(text)} bytes", f"at most {_LARGEST}", "too-large")
        try:
            given = tomllib.loads(text.decode("utf-8"))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError(name, str(error)[:200], "TOML", "malformed") from error
        try:
            return cls.model_validate(_with_systems(given, name))
        except ValidationError as error:
            raise _placed(input_error(error, name), name) from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file.

        Raises:
            InputError: it cannot be read, or as :meth:`parse`.
        """
        try:
            text = path.read_bytes()
        except OSError as error:
            given = f"{path}: {error.strerror or error}"
            expected = "a policy file ('certes init' writes a first one)"
            raise InputError("--policy", given, expected, "unreadable") from error
        return cls.parse(text, path.name)


def _with_systems(given: dict[str, Any], name: str) -> dict[str, Any]:
    """The description of each network as an entry of its own."""
    models = given.get("models")
    if not isinstance(models, dict):
        return given
    found = {}
    for model, entries in models.items():
        if not isinstance(entries, dict):
            found[model] = entries
            continue
        place = f"models.{model}"
        if "assembly" in entries:
            if alone := [key for key in _SINGLE if key in entries]:
                expected = _RADIUS if alone[0] == "weight_radius_at_least" else _DESCRIBED
                raise InputError(f"{name}: {place}.{alone[0]}", "an entry for one network", expected, "conflict")
            found[model] = entries
            continue
        if "file" not in entries:
            expected = "file (weights) or assembly (a description, or a folder that a training has written)"
            raise InputError(f"{name}: {place}.file", "nothing", expected, "missing-value")
        if "form" not in entries:
            expected = "rate, hopfield, lure, torch-rnn, gru or lstm"
            raise InputError(f"{name}: {place}.form", "nothing", expected, "missing-value")
        try:
            system = SystemSpec.parse({key: entries[key] for key in SYSTEM if key in entries}, place)
        except InputError as error:
            raise _placed(error, name) from None
        found[model] = {key: value for key, value in entries.items() if key not in SYSTEM} | {"system": system}
    return given | {"models": found}


def _placed(error: InputError, name: str) -> InputError:
    field = error.field.removeprefix(f"{name}.")
    return InputError(f"{name}: {field}" if field != name else name, error.given, error.expected, error.slug)
