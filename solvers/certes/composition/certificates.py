"""The certificates of a composition, one for every network and every step: :mod:`certes.certificate.assembly`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from certes.assemblies import Assembly, FlowProof, InterfaceProof
from certes.certificate.assembly import AssemblyBundle, Builder
from certes.certificate.assembly_statement import AssemblyClaims
from certes.composition.compose import compose, largest_step
from certes.composition.outcome import Composed, Composition
from certes.errors import InputError
from certes.systems import System


def certified(composition: Composition, *, proof: Literal["best", "interface"] = "best") -> AssemblyBundle:
    """The certificates of an assembly that was found contracting, unsigned.

    Args:
        composition: the answer of :func:`certes.compose`.
        proof: which proof stands for the top level: that of the best number, or that of the interfaces, which also
            gives a Lipschitz constant and a largest step, and can be a module of another assembly.

    Raises:
        InputError: not contracting, or without the proof that was asked for.
    """
    if composition.verdict != "contracting":
        raise InputError("composition", f"one that is {composition.verdict}", "one that is contracting", "not-proven")
    builder, made = Builder(), dict[int, str]()
    root = composition.root
    if composition.whole is not None and (proof == "best" or root is None):
        if proof == "interface":
            raise InputError("proof", "no proof by interfaces", "a composition with one", "not-proven")
        children = _children(composition)
        digests = {name: _digest(builder, child, made) for name, child in children.items()}
        level = composition.whole.level
        continuous = composition.assembly.continuous
        claims = AssemblyClaims(rate=level) if continuous else AssemblyClaims(factor=level)
        return builder.bundle(builder.step(composition.assembly, digests, composition.whole, claims, {}))
    if root is None:
        raise InputError("composition", "no proof", "a composition with one", "not-proven")
    return builder.bundle(_digest(builder, root, made))


def _children(composition: Composition) -> Mapping[str, Composed]:
    """The modules of the top level with their proofs; none of their networks is proven anew."""
    if composition.root is not None:
        return composition.root.children
    found: dict[str, Composed] = {}
    for name, module in composition.assembly.modules.items():
        # a network alone is an assembly of one module: its interface is known, and is what is wanted here
        inner = module if isinstance(module, Assembly) else Assembly({name: module})
        answer = compose(inner, mode="exact", refute=False, known=composition)
        if answer.root is None:
            raise InputError(f"modules.{name}", "no proof of its own", "a module that is proven", "not-proven")
        found[name] = answer.root if isinstance(module, Assembly) else answer.root.children[name]
    return found


def _digest(builder: Builder, node: Composed, made: dict[int, str]) -> str:
    """The certificate of a module, and of everything below it first."""
    if id(node) not in made:
        made[id(node)] = _add(builder, node, made)
    return made[id(node)]


def _add(builder: Builder, node: Composed, made: dict[int, str]) -> str:
    if isinstance(node.module, System):
        assert isinstance(node.proof, InterfaceProof)
        return builder.network(node.module, node.proof)
    assert not isinstance(node.proof, InterfaceProof)
    digests = {name: _digest(builder, child, made) for name, child in node.children.items()}
    interfaces = {name: child.proof for name, child in node.children.items() if isinstance(child.proof, InterfaceProof)}
    return builder.step(node.module, digests, node.proof, _claims(node), interfaces)


def _claims(node: Composed) -> AssemblyClaims:
    """What the proof of a step claims."""
    if not isinstance(node.module, Assembly) or not node.interface.continuous:
        return AssemblyClaims(factor=node.interface.level)
    lipschitz = node.interface.lipschitz
    step = None
    if isinstance(node.proof, FlowProof) and lipschitz is not None:
        step = largest_step(node.proof.level, lipschitz)
    return AssemblyClaims(rate=node.interface.level, lipschitz=lipschitz, largest_step=step)
