"""Stacked and bidirectional ``torch.nn.RNN`` as assemblies, one module per layer.

**Stacked.** Layer k is x_k(t+1) = phi(W_k x_k(t) + U_k x_(k-1)(t+1) + b_k): it reads the *new* state of the layer
below (layer 0 reads the input). The assembly has W_k in the modules (maps, step 1) and U_k as couplings inside phi,
which read the *old* state: z_k(t+1) = phi(W_k z_k(t) + U_k z_(k-1)(t) + b_k). The two are one network, looked at in
different times: z_k(t) = x_k(t-k) turns every trajectory of torch's network into one of the assembly from time t = L
on (L layers), inputs shifted alike, and back. So

1. whatever the proof, with factor rho of the assembly: the distance of any two trajectories of torch's network under
   the same input is at most C rho^t, in the norms of the layers, with C proportional to their first distance;
2. if the proof is that of the interfaces, torch's own map, one step of all layers at once, has the *same* factor. With
   rho_k the factors of the layers, n_k the norms of the couplings, r, l and p, q <= 1 of the proof (docs/theory.md
   section 13: R = diag(rho), N = the n_k below the diagonal, (R + N) r <= p r, (R + N)^T l <= q l): distances d of
   two states obey d+ <= R d + N d+, that is d+ <= T d with T = (I - N)^-1 R >= 0. From R r <= p r - N r <= p (I - N) r
   follows T r <= p r, and with m = (I - N)^T l > 0 likewise T^T m <= q m: factor sqrt(p q) in diag(m_k / r_k M_k).

A witness against the assembly is one against torch's network: equilibria and the layers' own modes are the same.

**Bidirectional.** The two directions of a layer never meet: each runs in its own time, one forwards, one backwards, and
is an assembly of its own. In a stack, a layer reads both directions of the layer below, at all times: then every layer
and direction is certified alone. The whole is a cascade of maps each of which forgets its own initial state at its
factor, and whose outputs follow their inputs with a finite gain; no one factor of the whole is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from certes.assemblies import Assembly, Coupling
from certes.errors import InputError
from certes.spec import SystemSpec
from certes.systems import RateNetwork, UnsupportedCell
from certes.weights import WeightFile

#: Cells of :class:`certes.systems.UnsupportedCell` that are read here.
CELLS = ("stacked-rnn", "bidirectional-rnn")
#: Layers that are read.
DEEPEST_STACK = 1000
_REVERSE = "_reverse"


def read(
    weights: WeightFile,
    name: str | None = None,
    *,
    activation: str | None = None,
    slope: Sequence[Any] | None = None,
) -> list[tuple[str, Assembly]]:
    """The assemblies of a ``torch.nn.RNN`` with any number of layers and directions.

    Args:
        weights: the file.
        name: the recurrent tensor of the first layer (``rnn.weight_hh_l0``), needed only if there are several.
        activation: ``tanh`` (torch's default, and here) or ``relu``.
        slope: slopes instead.

    Returns:
        One entry for a stack in one direction (modules ``layer0``, ``layer1``, ...); ``forward`` and ``reverse`` for
        one bidirectional layer; ``layer0``, ``layer0_reverse``, ``layer1``, ... for a bidirectional stack.

    Raises:
        InputError: no such network, or tensors that do not fit each other.
    """
    from certes.recognise import torch_cell

    cell = torch_cell(weights, name)
    if isinstance(cell, UnsupportedCell) and cell.cell not in CELLS:
        raise InputError("tensors.W", cell.detail, "a torch.nn.RNN", "unsupported-cell")
    if activation is None and slope is None:
        activation = "tanh"
    layers = _Layers(weights, _prefix(weights, name), activation, slope)
    if not layers.both:
        return [(layers.name, layers.stack())]
    if layers.count == 1:
        return [(side, Assembly({"layer0": layers.network(0, end)})) for side, end in layers.sides("forward")]
    found = []
    for k in range(layers.count):
        for side, end in layers.sides(""):
            label = f"layer{k}{_REVERSE if side else ''}"
            found.append((label, Assembly({label: layers.network(k, end)})))
    return found


def of_spec(spec: SystemSpec, weights: WeightFile) -> list[tuple[str, Assembly]]:
    """:func:`read` for the spec of a system of form ``torch-rnn``.

    Raises:
        InputError: as :func:`read`.
    """
    return read(weights, spec.tensors.get("W"), activation=spec.activation, slope=spec.slope)


def claim(assemblies: Sequence[tuple[str, Assembly]], mode: str | None) -> str:
    """What a factor of the assemblies says about torch's network, in words."""
    if len(assemblies) == 1:
        if len(assemblies[0][1].modules) == 1:
            return "the map that torch runs"
        shared = (
            "proven for the layers in a pipeline, each one step behind the layer below: torch's trajectories, shifted"
        )
        if mode == "interface":
            return f"{shared}; torch's own step of all layers has the same factor, in a block-diagonal metric"
        return f"{shared}; torch's own states approach each other at this factor, up to a constant"
    if {name for name, _ in assemblies} == {"forward", "reverse"}:
        return "two networks, each in its own time: each contracts at its own factor"
    return (
        "every layer and direction alone, for any input: the whole is a cascade of contracting maps; "
        "no one factor of the whole is claimed"
    )


def _prefix(weights: WeightFile, name: str | None) -> str:
    first = "weight_hh_l0"
    if name is None:
        name = next(entry for entry in weights.tensors if entry == first or entry.endswith("." + first))
    return name.removesuffix(first)


class _Layers:
    """The layers of one network."""

    def __init__(self, weights: WeightFile, prefix: str, activation: str | None, slope: Sequence[Any] | None) -> None:
        self.weights, self.prefix = weights, prefix
        self.activation, self.slope = activation, None if slope is None else (slope[0], slope[1])
        self.both = f"{prefix}weight_hh_l0{_REVERSE}" in weights.tensors
        self.count = 0
        while f"{prefix}weight_hh_l{self.count}" in weights.tensors:
            self.count += 1
        if self.count > DEEPEST_STACK:
            raise InputError("weights", f"{self.count} layers", f"at most {DEEPEST_STACK}", "too-deep")

    @property
    def name(self) -> str:
        """What the network is called in the file, or "rnn"."""
        return self.prefix.rstrip(".") or "rnn"

    def sides(self, forward: str) -> list[tuple[str, str]]:
        """(name, end of its tensors' names) of both directions."""
        return [(forward, ""), ("reverse", _REVERSE)]

    def network(self, layer: int, end: str = "") -> RateNetwork:
        """One layer in one direction: the map with step 1."""
        name, size = f"{self.prefix}weight_hh_l{layer}{end}", self._size()
        recurrent = self.weights.matrix(name, name)
        below = self._feed(layer, end)
        biases = [
            self.weights.tensors[bias]
            for side in ("ih", "hh")
            if (bias := f"{self.prefix}bias_{side}_l{layer}{end}") in self.weights.tensors
        ]
        for entry, shape in [(self.weights.tensors[name], (size, size)), *((bias, (size,)) for bias in biases)]:
            if entry.shape != shape:
                raise InputError(entry.name, f"shape {entry.shape}", f"{shape}, as the first layer", "wrong-shape")
        return RateNetwork(
            recurrent,
            self.activation,
            self.slope,
            step=1.0,
            input_matrix=None if below is None else below.floats(),
            bias=sum(entry.floats() for entry in biases) if biases else None,
            file=self.weights.file,
        )

    def stack(self) -> Assembly:
        """All layers, each coupled to the one below it inside phi."""
        modules = {f"layer{k}": self.network(k) for k in range(self.count)}
        couplings = []
        for k in range(1, self.count):
            feed = self._feed(k, "")
            assert feed is not None
            couplings.append(Coupling(f"layer{k}", f"layer{k - 1}", feed.tensor(), inside=True))
        return Assembly(modules, tuple(couplings))

    def _size(self) -> int:
        return self.weights.tensors[f"{self.prefix}weight_hh_l0"].shape[1]

    def _feed(self, layer: int, end: str) -> Any:
        """The tensor that reads the layer below (or the input, which may be absent)."""
        name, size = f"{self.prefix}weight_ih_l{layer}{end}", self._size()
        if layer == 0 and name not in self.weights.tensors:
            return None
        entry = self.weights.get(name, name)
        columns = entry.shape[-1] if layer == 0 else size * (2 if self.both else 1)
        if entry.shape != (size, columns):
            expected = f"({size}, {'inputs' if layer == 0 else columns})"
            raise InputError(name, f"shape {entry.shape}", expected, "wrong-shape")
        return entry
