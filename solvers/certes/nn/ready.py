"""Assemblies as published, each certified by construction (the originals are not: docs/training.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from certes.nn.assembly import Assembly
from certes.nn.skew import Topology
from certes.nn.stable import Diagonal, Fixed, Orthogonal, Singular, sparse_weights


class SparseComboNet(Assembly):
    """Sparse modules that are drawn once and stay; couplings, inputs and readout are trained.

    Kozachkov, Ennis and Slotine 2022. The modules pass ``absolute`` in the metric that the couplings use.

    Args:
        input_size: features per step.
        module_sizes: states of the modules.
        output_size: of the readout.
        density: share of a module's weights that are not 0.
        level: bound on the norm of a module in its metric.
        activation: phi.
        topology: which modules are coupled.
        seed: of the modules, and of random pairs.
        options: see :class:`certes.nn.Assembly`.

    Raises:
        InputError: no draw passes, or what :class:`certes.nn.Assembly` raises.
    """

    def __init__(
        self, input_size: int, module_sizes: Sequence[int], output_size: int, *, density: float = 0.033,
        level: float = 0.7, activation: str = "relu", topology: Topology | Sequence[tuple[int, int]] = "all",
        seed: int = 0, **options: Any,
    ) -> None:  # fmt: skip
        drawn = [sparse_weights(size, density, level, 1000 * seed + k) for k, size in enumerate(module_sizes)]
        modules = [Fixed(weights) for weights in drawn]
        super().__init__(
            input_size, modules, output_size, activation=activation, topology=topology, seed=seed, **options
        )


class SVDComboNet(Assembly):
    """Modules Theta^-1 U S V^T Theta, trained with their metrics and couplings.

    Kozachkov, Ennis and Slotine 2022.

    Args:
        input_size: features per step.
        module_sizes: states of the modules.
        output_size: of the readout.
        level: bound on the singular values.
        activation: phi.
        topology: which modules are coupled.
        options: see :class:`certes.nn.Assembly`.

    Raises:
        InputError: see :class:`certes.nn.Assembly`.
    """

    def __init__(
        self, input_size: int, module_sizes: Sequence[int], output_size: int, *, level: float = 0.7,
        activation: str = "relu", topology: Topology | Sequence[tuple[int, int]] = "all", **options: Any,
    ) -> None:  # fmt: skip
        modules = [Orthogonal(size, level) for size in module_sizes]
        super().__init__(input_size, modules, output_size, activation=activation, topology=topology, **options)


class GlobalWorkspaceNet(Assembly):
    """Modules that talk to each other only through the last one.

    Ennis, Kozachkov and Slotine 2023. Any module but the last can be removed, and the rest stays certified.

    Args:
        input_size: features per step.
        module_sizes: states of the modules, the workspace last.
        output_size: of the readout.
        level: bound on the norm of a module in its metric.
        activation: phi.
        options: see :class:`certes.nn.Assembly`.

    Raises:
        InputError: see :class:`certes.nn.Assembly`.
    """

    def __init__(
        self, input_size: int, module_sizes: Sequence[int], output_size: int, *, level: float = 0.7,
        activation: str = "relu", **options: Any,
    ) -> None:  # fmt: skip
        modules = [Singular(size, level) for size in module_sizes]
        super().__init__(input_size, modules, output_size, activation=activation, topology="hub", **options)


class AdaDiagNet(Assembly):
    """Diagonal modules with a trained step per state, and random couplings.

    Ceni et al. 2026, with steps that do not depend on the input.

    Args:
        input_size: features per step.
        module_sizes: states of the modules.
        output_size: of the readout.
        level: bound on the diagonal.
        couplings: number of coupled pairs; None: all.
        step: smallest and largest step.
        activation: phi.
        options: see :class:`certes.nn.Assembly`.

    Raises:
        InputError: see :class:`certes.nn.Assembly`.
    """

    def __init__(
        self, input_size: int, module_sizes: Sequence[int], output_size: int, *, level: float = 0.5,
        couplings: int | None = None, step: float | tuple[float, float] = (1e-3, 0.2), activation: str = "relu",
        **options: Any,
    ) -> None:  # fmt: skip
        modules = [Diagonal(size, level) for size in module_sizes]
        topology = options.pop("topology", "all" if couplings is None else "random")
        super().__init__(
            input_size, modules, output_size, activation=activation, topology=topology, couplings=couplings,
            step=step, **options,
        )  # fmt: skip
