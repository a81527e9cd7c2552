"""Networks of networks as values: modules, couplings between them, and the proofs that a composition consists of.

An assembly couples modules, each a network or an assembly itself. With modules in continuous time

    x_i' = f_i(x_i, u_i + sum_j C_ij x_j) + sum_j L_ij x_j

where L_ij is a *linear* coupling as it stands in x', in 1/(unit of time), and C_ij a coupling *inside* phi, added to
its argument: such an edge needs a module of form ``rate`` or ``lure`` at its head. Modules that are maps are coupled in
the next state: x_i+ = F_i(x_i, ...) + sum_j L_ij x_j. An assembly of modules in continuous time can be run with an
Euler step: x+ = x + h x' of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError
from certes.proofs import ArrayProof, Exponents, Square, Vector
from certes.systems import SparseMatrix, System, Tensor

Array = NDArray[np.float64]

#: Depth of nesting, and number of networks at all levels, that are accepted.
DEEPEST, MOST = 64, 100_000
#: Separates the names of a path: ``brain/v1/layer2``.
SEPARATOR = "/"


@dataclass(frozen=True, eq=False)
class Coupling:
    """One edge of an assembly.

    Attributes:
        to, source: names of the modules at its head and its tail.
        weights: shape (n_to, n_source); into phi: (m_to, n_source), m the number of nonlinearities.
        inside: whether it enters the argument of phi.
    """

    to: str
    source: str
    weights: Tensor
    inside: bool = False

    @property
    def matrix(self) -> Array:
        """The weights as a dense matrix."""
        assert isinstance(self.weights.value, np.ndarray)
        return self.weights.value

    @property
    def name(self) -> str:
        """How errors and reports call it."""
        return f"{self.to}<-{self.source}" + (" (inside)" if self.inside else "")


@dataclass(frozen=True, eq=False)
class Assembly:
    """Modules and the couplings between them. Build one with :func:`certes.compose`.

    Attributes:
        modules: name -> network or assembly, in the order of their states.
        couplings: the edges; at most one of a kind per pair.
        step: Euler step of the whole, in the unit of time of x'; None: as the modules are.

    Raises:
        InputError: naming ``modules.NAME`` or ``couplings.TO.SOURCE``.
    """

    modules: Mapping[str, System | Assembly]
    couplings: tuple[Coupling, ...] = ()
    step: float | None = None

    def __post_init__(self) -> None:
        # copies: what is certified must not change with the dictionary or list it was built from
        object.__setattr__(self, "modules", dict(self.modules))
        object.__setattr__(self, "couplings", tuple(self.couplings))
        if not self.modules:
            raise InputError("modules", "none", "at least one module", "missing-value")
        for name, module in self.modules.items():
            if not isinstance(name, str) or not name or SEPARATOR in name or len(name) > 200:
                raise InputError("modules", f"the name {name!r}", f"a name without {SEPARATOR!r}", "wrong-type")
            if isinstance(module, System) and module.is_sparse:
                raise InputError(f"modules.{name}", "sparse weights", "dense weights", "sparse")
        self._count()
        times = {name: module.continuous for name, module in self.modules.items()}
        if len(set(times.values())) > 1:
            odd = next(name for name, kind in times.items() if kind != next(iter(times.values())))
            given = "a map among networks in continuous time, or the reverse"
            raise InputError(f"modules.{odd}", given, "modules of one kind", "wrong-time")
        if self.step is not None and not (next(iter(times.values())) and 0.0 < self.step < np.inf):
            raise InputError("step", f"{self.step!r}", "a positive step, for modules in continuous time", "conflict")
        seen: set[tuple[str, str, bool]] = set()
        for edge in self.couplings:
            self._check(edge, seen)

    def _count(self) -> None:
        """States, levels and networks; a module that is named twice counts twice without being looked at twice."""
        inner = [module for module in self.modules.values() if isinstance(module, Assembly)]
        object.__setattr__(self, "_size", sum(module.size for module in self.modules.values()))
        object.__setattr__(self, "_depth", 1 + max((module.depth for module in inner), default=0))
        networks = len(self.modules) - len(inner) + sum(module.networks for module in inner)
        object.__setattr__(self, "_networks", networks)
        if self.depth > DEEPEST:
            raise InputError("modules", f"{self.depth} levels", f"at most {DEEPEST}", "too-deep")
        if networks > MOST:
            raise InputError("modules", f"{networks} networks", f"at most {MOST}", "too-large")

    def _check(self, edge: Coupling, seen: set[tuple[str, str, bool]]) -> None:
        field = f"couplings.{edge.to}.{edge.source}"
        for end in (edge.to, edge.source):
            if end not in self.modules:
                known = ", ".join(list(self.modules)[:20])
                raise InputError(field, f"an unknown module {end!r}", f"one of {known}", "unknown-module")
        if edge.to == edge.source:
            raise InputError(field, "a coupling of a module to itself", "such weights inside the module", "conflict")
        if not isinstance(edge.inside, bool):  # None and False would be two kinds of couplings that are not inside
            raise InputError(field, f"inside = {edge.inside!r}", "True or False", "wrong-type")
        if (edge.to, edge.source, edge.inside) in seen:
            raise InputError(field, "two couplings of one kind between two modules", "one", "duplicate-key")
        seen.add((edge.to, edge.source, edge.inside))
        if isinstance(edge.weights.value, SparseMatrix):
            raise InputError(field, "a sparse matrix", "a dense matrix", "sparse")
        head, rows = self.modules[edge.to], self.modules[edge.to].size
        if edge.inside:
            if isinstance(head, Assembly) or head.form == "hopfield":
                expected = "a module of form rate or lure at the head (in form hopfield the argument is the state)"
                raise InputError(field, "a coupling inside phi", expected, "conflict")
            rows = len(head.slope.lower)
        shape = (rows, self.modules[edge.source].size)
        if edge.weights.value.shape != shape:
            raise InputError(field, f"shape {edge.weights.value.shape}", f"shape {shape}", "wrong-shape")

    @property
    def size(self) -> int:
        """Number of states."""
        found: int = self._size  # type: ignore[attr-defined]
        return found

    @property
    def networks(self) -> int:
        """Number of networks, at any level."""
        found: int = self._networks  # type: ignore[attr-defined]
        return found

    @property
    def continuous(self) -> bool:
        """Whether it is a differential equation."""
        return self.step is None and next(iter(self.modules.values())).continuous

    @property
    def depth(self) -> int:
        """Levels of nesting: 1 for an assembly of networks."""
        found: int = self._depth  # type: ignore[attr-defined]
        return found

    @property
    def places(self) -> dict[str, slice]:
        """Name -> states of the module."""
        found, position = {}, 0
        for name, module in self.modules.items():
            found[name] = slice(position, position + module.size)
            position += module.size
        return found

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, System]]:
        """Path and network of every leaf, in the order of the states."""
        for name, module in self.modules.items():
            if isinstance(module, Assembly):
                yield from module.leaves(f"{prefix}{name}{SEPARATOR}")
            else:
                yield prefix + name, module


@dataclass(frozen=True, eq=False)
class InterfaceProof(ArrayProof):
    """What a network offers to an assembly: a metric M in which it has a rate (factor) and a Lipschitz constant.

    Attributes:
        metric: M, shape (n, n).
        multipliers: of the Lur'e block at the rate or factor, shape (m,).
        lipschitz_multipliers: of the block of a map at the Lipschitz constant, shape (m,); zeros where none is claimed.
        level: the rate (continuous time) or factor (a map).
        lipschitz: K with norm_M(J(D)) <= K for all slopes; 0 where none is claimed (a map: the factor is one).
    """

    kind: ClassVar[str] = "interface"
    metric: Square
    multipliers: Vector
    lipschitz_multipliers: Vector
    level: float
    lipschitz: float


@dataclass(frozen=True, eq=False)
class FlowProof(ArrayProof):
    """Composition in continuous time, k modules: the rate c of the whole in the metric diag(s_i M_i).

    Attributes:
        scale, exponent: s_i = scale_i 4^exponent_i, shapes (k,).
        exact: whether the N x N test is meant; else the k x k test with bounds per pair.
        pairs: (i, j), i < j, flattened, shape (2 p,): the pairs that are coupled linearly.
        sigma: sigma_ij, relative to 2^(exponent_i + exponent_j), shape (p,).
        vector: v > 0 with H v > 0, shape (k,); not used by the exact test.
        norms: an upper bound of norm(L_e) or norm(B D C_e), metric of the tail to metric of the head, per coupling,
            shape (e,); for linear couplings needed for the Lipschitz constant only (0: not claimed).
        multipliers: of the couplings inside phi, one after the other.
        level: c.
        lipschitz: K of the whole; 0 where none is claimed.
        factor: of the Euler map with the assembly's step; 0 for an assembly without one.
    """

    kind: ClassVar[str] = "flow-composition"
    scale: Vector
    exponent: Exponents
    exact: bool
    pairs: Exponents
    sigma: Vector
    vector: Vector
    norms: Vector
    multipliers: Vector
    level: float
    lipschitz: float
    factor: float


@dataclass(frozen=True, eq=False)
class MapProof(ArrayProof):
    """Composition of maps, k modules: T_ij = rho_i delta_ij + norm(coupling) has T r <= p r and T^T l <= q l.

    The factor is sqrt(p q) in the metric diag(l_i / r_i M_i).

    Attributes:
        right, right_exponent: r_i = right_i 2^right_exponent_i, shapes (k,).
        left, left_exponent: l_i, likewise.
        norms: per coupling, shape (e,).
        multipliers: of the couplings inside phi, one after the other.
        level: the factor.
    """

    kind: ClassVar[str] = "map-composition"
    right: Vector
    right_exponent: Exponents
    left: Vector
    left_exponent: Exponents
    norms: Vector
    multipliers: Vector
    level: float


@dataclass(frozen=True, eq=False)
class WholeProof(ArrayProof):
    """The Lur'e inequality of the whole: metric and multipliers of all states and nonlinearities.

    Attributes:
        metric: shape (N, N).
        multipliers: shape (m,).
        level: rate or factor.
    """

    kind: ClassVar[str] = "whole"
    metric: Square
    multipliers: Vector
    level: float


CompositionProof = FlowProof | MapProof | WholeProof
