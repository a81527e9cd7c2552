"""What if: an assembly without some modules, or with couplings scaled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from certes.assemblies import SEPARATOR, Assembly, Coupling
from certes.errors import InputError
from certes.systems import System, tensor

Kept = NDArray[np.bool_]


def changed(assembly: Assembly, without: Sequence[str], scale: Mapping[tuple[str, str], float]) -> Assembly:
    """The assembly without the modules at some paths, and with couplings of the top level scaled.

    Raises:
        InputError: an unknown path or coupling, a factor that is not finite, or an assembly that would be empty.
    """
    pairs = {(edge.to, edge.source) for edge in assembly.couplings}
    for pair, factor in scale.items():
        if pair not in pairs:
            known = ", ".join(f"{to}<-{source}" for to, source in sorted(pairs)[:20]) or "none"
            raise InputError("scale", f"{pair[0]}<-{pair[1]}", f"a coupling: {known}", "unknown-coupling")
        if not np.isfinite(factor):
            raise InputError("scale", f"{factor}", "a finite factor", "not-finite")
    smaller, _ = _without(assembly, tuple(dict.fromkeys(without)), "")
    couplings = []
    for edge in smaller.couplings:
        factor = float(scale.get((edge.to, edge.source), 1.0))
        if factor == 1.0:
            couplings.append(edge)
        elif factor != 0.0:
            couplings.append(_weighted(edge, factor * edge.matrix))
    return Assembly(smaller.modules, tuple(couplings), smaller.step)


def _weighted(edge: Coupling, matrix: NDArray[np.float64]) -> Coupling:
    return Coupling(edge.to, edge.source, tensor(f"couplings.{edge.to}.{edge.source}", matrix), edge.inside)


def _without(assembly: Assembly, paths: tuple[str, ...], prefix: str) -> tuple[Assembly, dict[str, Kept]]:
    """The assembly without those paths, and which states of each of its modules are left."""
    if not paths:
        return assembly, {name: np.ones(module.size, dtype=np.bool_) for name, module in assembly.modules.items()}
    gone = {path for path in paths if SEPARATOR not in path}
    inner: dict[str, list[str]] = {}
    for path in paths:
        head, _, rest = path.partition(SEPARATOR)
        module = assembly.modules.get(head)
        if module is None or (rest and not isinstance(module, Assembly)):
            known = ", ".join(prefix + name for name in list(assembly.modules)[:20])
            raise InputError("without", repr(prefix + path), f"the path of a module: {known}, ...", "unknown-module")
        if rest:
            inner.setdefault(head, []).append(rest)
    modules: dict[str, System | Assembly] = {}
    kept: dict[str, Kept] = {}
    for name, module in assembly.modules.items():
        if name in gone:
            continue
        if name in inner and isinstance(module, Assembly):
            smaller, states = _without(module, tuple(inner[name]), f"{prefix}{name}{SEPARATOR}")
            whole = [states.get(child, np.zeros(part.size, dtype=np.bool_)) for child, part in module.modules.items()]
            modules[name], kept[name] = smaller, np.concatenate(whole)
        else:
            modules[name], kept[name] = module, np.ones(module.size, dtype=np.bool_)
    if not modules:
        raise InputError("without", "every module", "at least one that stays", "missing-value")
    couplings = []
    for edge in assembly.couplings:
        if edge.to in modules and edge.source in modules:
            rows = slice(None) if edge.inside else kept[edge.to]
            part = edge.matrix[rows][:, kept[edge.source]]
            couplings.append(edge if part.shape == edge.matrix.shape else _weighted(edge, part))
    return Assembly(modules, tuple(couplings), assembly.step), kept
