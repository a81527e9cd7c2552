"""What the service can be asked, and what a solver process needs to answer it.

A question lives twice. The API parses and checks it and keeps it as a name of its kind, JSON and bytes; a solver
process builds it again from these and answers. So everything here is plain: what crosses the pipe between the two is
JSON and bytes, and never a pickle. This module loads neither a web framework nor a database.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from certes import strictjson
from certes._version import __version__
from certes.cells import GatedNetwork
from certes.errors import TooLargeError
from certes.results import Result, scalars
from certes.systems import System, UnsupportedCell
from certes.weights import Limits as FileLimits
from certes.weights import WeightFile, read_weights

if TYPE_CHECKING:
    from certes_service.settings import Settings
    from certes_service.storage.store import Document

#: Seconds that an attempt gets whatever earlier ones took: enough to hand in what they came to.
LEAST = 0.01
#: Why a solver process was ended without an answer of its own.
Spent = Literal["deadline", "memory"]


@dataclass(frozen=True)
class Limits:
    """What a solver process is held to.

    Attributes:
        file_bytes: largest weight file.
        states: largest number of states of a dense system.
    """

    file_bytes: int
    states: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of the service."""
        return cls(settings.max_body_bytes, settings.max_states)

    def read(self, weights: bytes, name: str | None) -> WeightFile:
        """A weight file, within the limits.

        Raises:
            InputError: it is none.
        """
        return read_weights(weights, FileLimits(file_bytes=self.file_bytes), name=name)

    def check_size(self, system: System | GatedNetwork | UnsupportedCell) -> None:
        """Raise TooLargeError if a dense system has more states than may be solved."""
        if isinstance(system, UnsupportedCell) or (isinstance(system, System) and system.is_sparse):
            return
        widest = max(max(entry.value.shape) for entry in system.tensors.values())
        if widest > self.states:
            name = "spec.tensors." + next(iter(system.tensors))
            raise TooLargeError(name, f"{widest} states", self.states, "states")


@dataclass(frozen=True)
class Attachment:
    """A stored certificate that a question refers to.

    Attributes:
        envelope: the document.
        proof: the proof file.
        weights: the weight file that the statement names, if it is kept.
    """

    envelope: bytes = field(repr=False)
    proof: bytes = field(repr=False)
    weights: bytes | None = field(default=None, repr=False)


@dataclass
class Context:
    """A solver's surroundings while it works on one question.

    Attributes:
        limits: what it is held to.
        seconds: time limit; the process is killed a little after it.
        device: where training computes (``cpu``, ``cuda:0``).
        resume: the last checkpoint of an earlier attempt.
        spent: seconds that earlier attempts took, of those that the question asks for.
        attachments: digest -> stored certificate, of those that the question needs and that there are.
        on_progress: told of progress, as ``{"phase", "fraction", "message"}``.
        on_checkpoint: given checkpoints.
    """

    limits: Limits
    seconds: float
    device: str = "cpu"
    resume: bytes | None = None
    attachments: Mapping[str, Attachment] = field(default_factory=dict)
    spent: float = 0.0
    on_progress: Callable[[dict[str, Any]], None] = lambda _: None
    on_checkpoint: Callable[[bytes], None] = lambda _: None

    def progress(self, phase: str, fraction: float | None = None, message: str = "") -> None:
        """Tell how far it is; may be called often and from any thread: a few a second are passed on.

        Args:
            phase: one word or two: what is being done.
            fraction: of the whole, between 0 and 1; None: not known.
            message: in words.
        """
        known = None if fraction is None or not math.isfinite(fraction) else min(max(float(fraction), 0.0), 1.0)
        self.on_progress({"phase": phase, "fraction": known, "message": message})

    def say(self, line: str) -> None:
        """Progress as Certes' own functions report it: ``PHASE: what it does``."""
        phase, colon, rest = line.partition(": ")
        self.progress(phase if colon else "solving", None, rest if colon else line)

    def checkpoint(self, data: bytes) -> None:
        """Keep the state from which another attempt can go on; it gets it as :attr:`resume`."""
        self.on_checkpoint(data)

    def stored(self, digest: str) -> Attachment | None:
        """A stored certificate that the question named in :meth:`Question.needs`; None: there is none."""
        return self.attachments.get(digest)

    def limit(self, asked: float | None) -> float:
        """Seconds that may be spent: what is left of those that were asked for, within the limit."""
        return self.seconds if asked is None else min(max(asked - self.spent, LEAST), self.seconds)


@dataclass(frozen=True)
class Solved:
    """What a question came to, unsigned.

    Attributes:
        answer: as JSON, without links to its certificate.
        documents: digest -> envelope of every certificate, what is named before what names it.
        proofs: sha256 -> proof file of these.
        root: the certificate that answers the question; None if nothing was certified.
        weights: a weight file that was made and that belongs to the root (of an assembly: its couplings' tensors).
        assembly: whether the root is that of an assembly, and the answer lists its documents.
        states: how many states the network or assembly has, for whoever measures; None: not known.
        lasting: whether it answers the same question asked again, too; not if something else cut it short.
    """

    answer: dict[str, Any]
    documents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    proofs: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    root: str | None = None
    weights: bytes | None = field(default=None, repr=False)
    assembly: bool = False
    states: int | None = None
    lasting: bool = True


@dataclass(frozen=True)
class Finished:
    """An answer that can be kept and given.

    Attributes:
        answer: with links to its certificate, without the certificate's envelope: as it is remembered.
        documents: what is to be kept for it, what is named before what names it.
        envelope: of the certificate that answers the question.
        lasting: whether it answers the same question asked again, too.
    """

    answer: dict[str, Any]
    documents: tuple[Document, ...] = field(default=(), repr=False)
    envelope: bytes | None = field(default=None, repr=False)
    lasting: bool = True

    def inline(self) -> dict[str, Any]:
        """The answer with its certificate's envelope in it, as a call returns it."""
        if self.envelope is None:
            return dict(self.answer)
        link = self.answer["certificate"] | {"envelope": json.loads(self.envelope)}
        return self.answer | {"certificate": link}


class Question(Protocol):
    """Something that the service can be asked, parsed as far as that goes without the weights.

    A class with ``trains = True`` is held to its memory by being watched (CUDA maps far more than it uses), may write
    files, and its process is not used again.

    Attributes:
        kind: its name in :mod:`certes_service.questions.kinds`.
    """

    kind: ClassVar[str]

    @property
    def weights(self) -> bytes:
        """Bytes of a safetensors file."""
        ...

    @property
    def name(self) -> str:
        """The file's name, as a certificate will call it."""
        ...

    @classmethod
    def rebuild(cls, parts: Mapping[str, Any], weights: bytes, name: str) -> Self:
        """The question of which :meth:`parts` gave these.

        Raises:
            InputError: they are none.
        """
        ...

    def parts(self) -> dict[str, Any]:
        """All but weights and name, as JSON."""
        ...

    def digest(self, settings: Settings) -> str:
        """Same bytes and same question, same digest. The version and the signing key are part of the question."""
        ...

    def needs(self) -> set[str]:
        """Digests of the stored certificates that it refers to."""
        ...

    def attached(self) -> dict[str, Attachment]:
        """Documents of its own that come along under names of their own; most kinds have none."""
        ...

    def check(self, settings: Settings) -> None:
        """Find what is wrong with it before it is solved, as far as that costs no solving.

        Raises:
            InputError: the weights do not fit the question, or it cannot be asked. TooLargeError: beyond a limit.
        """
        ...

    def solve(self, context: Context) -> Solved:
        """Answer it; runs in a solver process.

        Raises:
            InputError: the weights do not fit the question.
        """
        ...

    def undecided(self, reason: Spent, detail: str) -> Solved:
        """The answer if the solver was ended for that reason."""
        ...


class Plain:
    """What most kinds have in common: the digest is of what is kept, and nothing comes along."""

    kind: ClassVar[str]
    weights: bytes
    name: str

    def parts(self) -> dict[str, Any]:
        """All but weights and name, as JSON."""
        raise NotImplementedError

    def digest(self, settings: Settings) -> str:
        """Same bytes and same question, same digest. The version and the key are part of the question."""
        return question_digest(self.kind, settings, self.weights, self.parts() | {"name": self.name})

    def needs(self) -> set[str]:
        """None."""
        return set()

    def attached(self) -> dict[str, Attachment]:
        """None."""
        return {}


def question_digest(kind: str, settings: Settings, weights: bytes, parts: Mapping[str, Any]) -> str:
    """The digest of a question of some kind: of its parts, the weights, the version and the key."""
    private = settings.private_key
    key = None if private is None else hashlib.sha256(private).hexdigest()
    question = {"version": __version__, "weights": hashlib.sha256(weights).hexdigest(), "key": key, "kind": kind}
    return hashlib.sha256(strictjson.canonical({**question, **parts})).hexdigest()


def result_json(result: Result) -> dict[str, Any]:
    """A result without its certificate, as JSON; Python names. The witness's arrays are in the proof file."""
    answer = result.to_json()
    del answer["certificate"]
    if answer["witness"] is not None:
        answer["witness"] = scalars(answer["witness"])
    return answer


def finite(value: Any) -> Any:
    """JSON has no infinity: null, at any depth."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def clip(text: str, limit: int = 300) -> str:
    """A text short enough to be echoed, without characters that UTF-8 cannot express."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
