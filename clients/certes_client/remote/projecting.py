"""What ``certes project --server`` does: the service looks for weights; they are measured and verified here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from certes import formats, words
from certes.errors import InputError
from certes.projection import Keep, Projection
from certes.projection.base import Problem, SetAttempt, number_to_reach
from certes.projection.keeping import Structure
from certes.results import Result
from certes.spec import SystemSpec
from certes.systems import HopfieldNetwork, Network, RateNetwork, SparseMatrix, System
from certes.weights import WeightFile, pack, read_weights, to_bytes
from numpy.typing import NDArray

from certes_client.remote import trust
from certes_client.remote.answers import Answer, ProjectionAnswer
from certes_client.remote.errors import Untrusted
from certes_client.remote.option import connected, told

if TYPE_CHECKING:
    from certes_client.remote.client import Client

_OUTCOMES: Mapping[str, Literal["certified", "refused", "nothing"]] = {
    "certified": "certified", "refused": "refused", "nothing": "nothing",
}  # fmt: skip
#: Names under which arrays travel that are in no weight file.
_MASK, _WEIGHTING = "certes.mask", "certes.weighting"


class Question:
    """A projection that is asked of a service.

    Args:
        file: the weights.
        spec: the network in it.
        weights: the file, read.
        system: the network.
        keep: what has to stay.
        weighting: S, shape (n, n), or None.
        search: condition, rate, seed, starts, seconds.

    Raises:
        InputError: as :func:`certes.project`.
    """

    def __init__(
        self,
        file: Path,
        spec: SystemSpec,
        weights: WeightFile,
        system: System,
        keep: Keep,
        weighting: NDArray[np.float64] | None,
        search: Mapping[str, Any],
    ) -> None:
        if not isinstance(system, RateNetwork | HopfieldNetwork):
            raise InputError("system", f"form {system.form}", "form rate or hopfield: one square W to move", "conflict")
        self._file, self._spec, self._weights, self._search = file, spec, weights, dict(search)
        self._keep, self._weighting = keep, weighting
        number = number_to_reach(system, search.get("rate"))
        self.problem = Problem(system, number, keep.structure(system), weighting)

    def answer(self, url: str, progress: Callable[[str], None]) -> Projection:
        """As :func:`certes.project` would answer, but searched for elsewhere.

        Raises:
            RemoteError: no answer, or one that does not hold.
        """
        with connected(url) as client:
            progress("asking the service")
            spec, weights = self._asked()
            found = client.project(spec, weights, self._weights.name, progress=told(progress))
            progress("verifying what it answered")
            if found.verdict == "undecided":
                result = trust.result(found.result, client.certificate, self.problem.system, None)
                return self._projection(found, self.problem.system, None, result)
            if found.verdict != "contracting" or found.digest is None:
                raise Untrusted(f"the service says {found.verdict} of weights that it made, and has no certificate")
            return self._certified(client, found, found.digest)

    def _certified(self, client: Client, found: ProjectionAnswer, digest: str) -> Projection:
        system = self.problem.system
        new: Network = system
        if not found.unchanged:
            new = self._read(client.weights(digest))
        _check_kept(self.problem.structure, new)
        distance = self.problem.distance(new.tensors["W"].value)
        if not trust.close(found.distance, distance) and found.distance != distance:
            raise Untrusted(
                f"the service says that its weights are {found.distance} away; they are {distance:.6g} away"
            )
        said = found.result
        if said.digest != digest:
            raise Untrusted("the service's answer is about another certificate than the one that it names")
        file = self._weights if found.unchanged else None
        result = trust.result(said, client.certificate, new, file, rate=self.problem.number)
        return self._projection(found, new, distance, result)

    def _asked(self) -> tuple[dict[str, Any], Path | bytes]:
        """The question, and the file; with arrays in it that come from elsewhere, if there are any."""
        given: dict[str, Any] = self._spec.model_dump(mode="json", exclude_none=True)
        given |= {name: value for name, value in self._search.items() if value is not None}
        kept: dict[str, Any] = {"zeros": self._keep.zeros, "diagonal": self._keep.diagonal, "rank": self._keep.rank}
        more: dict[str, Any] = {}
        if self._keep.mask is not None:
            more[_MASK], kept["mask"] = np.asarray(self._keep.mask), _MASK
        if self._weighting is not None:
            more[_WEIGHTING], given["weighting"] = np.asarray(self._weighting), _WEIGHTING
        given["keep"] = kept
        if not more:
            return given, formats.as_safetensors(self._file, self._weights)
        if taken := sorted(set(more) & set(self._weights.tensors)):
            raise InputError("weights", f"a tensor {taken[0]!r}", "no tensor of that name: it is added", "conflict")
        parts = {**self._weights.tensors, **read_weights(to_bytes(more)).tensors}
        packed = {name: (entry.dtype, list(entry.shape), entry.raw()) for name, entry in parts.items()}
        return given, pack(packed, self._weights.metadata)

    def _read(self, data: bytes) -> Network:
        """The network in the service's file: the same, but for its weights."""
        try:
            found = self._spec.system(read_weights(data, name=self._weights.name))
        except InputError as error:
            raise Untrusted(f"the service sent weights that cannot be read: {error}") from error
        given, stored = self.problem.system, None
        if isinstance(found, RateNetwork | HopfieldNetwork):
            stored = found.tensors["W"]
        if stored is None or [(s.dtype, s.shape) for s in stored.subjects] != [
            (s.dtype, s.shape) for s in given.tensors["W"].subjects
        ]:
            raise Untrusted("the service sent weights of another shape or dtype than those that it was given")
        assert isinstance(found, RateNetwork | HopfieldNetwork)
        if isinstance(stored.value, SparseMatrix) != isinstance(given.tensors["W"].value, SparseMatrix):
            raise Untrusted("the service sent weights that are stored otherwise than those that it was given")
        return found

    def _projection(
        self, found: ProjectionAnswer, system: Network, distance: float | None, result: Result
    ) -> Projection:
        problem, whole = self.problem, self.problem.size
        continuous = problem.system.continuous
        condition = found.text("condition")
        return Projection(
            system,
            distance,
            result,
            rate=problem.number if continuous else None,
            factor=None if continuous else problem.number,
            condition=None if condition is None else words.printable(condition),
            unchanged=found.unchanged,
            norm=problem.norm,
            relative=None if distance is None else (distance / whole if whole > 0.0 else 0.0),
            shrink_distance=found.number("shrink_distance"),
            fixed_scaling_distance=found.number("fixed_scaling_distance"),
            distance_bound=found.number("distance_bound"),
            attempts=tuple(_attempt(entry) for entry in found.objects("attempts")),
        )


def _check_kept(structure: Structure, new: Network) -> None:
    """Raise Untrusted unless everything was kept that had to be."""
    value, given = new.tensors["W"].value, structure.weights
    if isinstance(given, SparseMatrix):
        assert isinstance(value, SparseMatrix)
        same = np.array_equal(value.indices, given.indices) and np.array_equal(value.indptr, given.indptr)
        if not same:
            raise Untrusted("the service moved weights that had to stay: the pattern is another")
        return
    assert isinstance(value, np.ndarray)
    if structure.movable is not None and not np.array_equal(value[~structure.movable], given[~structure.movable]):
        raise Untrusted("the service moved weights that had to stay")
    if not Structure(value, None, structure.rank).holds:
        raise Untrusted(f"the service sent weights of a rank beyond {structure.rank}")


def _attempt(entry: Answer) -> SetAttempt:
    reason = entry.text("reason")
    return SetAttempt(
        words.printable(entry.text("condition") or ""),
        entry.one_of("outcome", _OUTCOMES),
        entry.number("distance"),
        None if reason is None else words.printable(reason),
        words.printable(entry.text("detail") or "", 2000),
    )
