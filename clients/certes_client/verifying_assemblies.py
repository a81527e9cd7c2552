"""What ``certes verify`` does with the certificate of an assembly: check everything in it, and show it as a tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from certes import words
from certes.assemblies import SEPARATOR
from certes.certificate.assembly import AssemblyBundle
from certes.certificate.assembly_check import AssemblyReport, NodeReport, verify_assembly
from certes.errors import InputError
from rich.text import Text
from rich.tree import Tree

from certes_client import output
from certes_client.verifying_gates import Gated, gated

#: Rows of the tree that are printed; the rest is counted.
_ROWS = 200


def run(path: Path, weights: Path, key: Path | None, exact: bool, as_json: bool, server: str | None = None) -> int:
    """Check the certificate of an assembly; returns the exit code: 0 valid, 1 invalid.

    Args:
        path: of the certificate of the whole, or a folder with one.
        weights: a weight file, or a folder that is searched for tensors by their digests.
        key: must have signed the whole.
        exact: refused: there is no exact audit of compositions.
        as_json: print one object.
        server: address of a service whose verifier has to say the same; None: nobody is asked.

    Raises:
        InputError: a file that cannot be read, or a folder with a gate that the certificate does not cover.
        RemoteError: a ``server`` that does not answer, or not the same.
    """
    if exact:
        expected = "the certificate of one network (there is no exact audit of compositions)"
        raise InputError("--exact", "the certificate of an assembly", expected, "unsupported")
    with output.Progress("verify").running() as progress:
        progress("checking every certificate of the assembly")
        bundle = AssemblyBundle.read(path)
        report = verify_assembly(bundle, weights, key=key)
        if server is not None:
            from certes_client.remote import verifying as remote

            progress("asking the service")
            remote.agree_on_assembly(server, report, bundle, weights, key)
        gate = gated(bundle, weights if weights.is_dir() else weights.parent) if report.valid else None
    if as_json:
        output.print_json(as_object(report, bundle, gate))
    else:
        _summary(path, report, bundle, key, gate)
    return 0 if report.valid else 1


def as_object(report: AssemblyReport, bundle: AssemblyBundle, gate: Gated | None) -> dict[str, Any]:
    """The report as ``--json`` prints it."""
    claims = bundle.statement.predicate.claims.model_dump() if report.valid else None
    return {
        "valid": report.valid,
        "verdict": report.verdict,
        "reason": report.reason,
        "path": report.path,
        "detail": report.detail,
        "digest": bundle.root,
        "signed": bundle.signed if report.valid else None,
        "claims": claims,
        "gate": gate,
        "networks_checked": report.leaves_checked,
        "steps_checked": report.steps_checked,
        "nodes": [_node(node) for node in report.nodes],
    }


def _node(node: NodeReport) -> dict[str, Any]:
    return {
        "path": node.path,
        "kind": node.kind,
        "digest": node.digest,
        "valid": node.report.valid,
        "level": node.level,
        "reason": node.report.reason,
        "blamed": node.blamed,
    }


def _summary(path: Path, report: AssemblyReport, bundle: AssemblyBundle, key: Path | None, gate: Gated | None) -> None:
    target = output.console()
    rows: list[tuple[str, str]] = []
    if report.valid:
        target.print(output.headline("valid", words.proven_line(report.verdict, _condition(bundle))))
        if gate is not None:
            rows += [("gated", words.gated(gate)), ("where the gate is open", "")]
        rows += _claim_lines(bundle)
        networks = sum(node.kind == "network" for node in report.nodes)
        checked = f"{report.leaves_checked} certificates of {networks} networks, {report.steps_checked} compositions"
        rows += [("checked", checked), ("signature", _signature(bundle, key)), ("digest", bundle.root)]
    else:
        target.print(output.headline("invalid", words.printable(path.name)))
        where = report.path or "the assembly itself"
        rows += [("reason", str(report.reason)), ("where", words.printable(where, 1000))]
        rows.append(("", words.printable(report.detail, 1000)))
    target.print(output.fields(rows))
    if report.nodes:
        target.print(_tree(report.nodes))


def _condition(bundle: AssemblyBundle) -> str:
    return bundle.statement.predicate.condition.name


def _claim_lines(bundle: AssemblyBundle) -> list[tuple[str, str]]:
    claims = bundle.statement.predicate.claims
    rows = []
    if claims.rate is not None:
        rows.append(("rate", words.claimed(claims.rate, up=False)))
    if claims.factor is not None:
        rows.append(("factor", words.claimed(claims.factor, up=True)))
    if claims.lipschitz is not None:
        rows.append(("lipschitz", words.claimed(claims.lipschitz, up=True)))
    if claims.largest_step is not None:
        step, factor = claims.largest_step.step, claims.largest_step.factor
        rows.append(("largest step", f"{words.claimed(step, up=False)} (factor {words.claimed(factor, up=True)})"))
    return rows


def _signature(bundle: AssemblyBundle, key: Path | None) -> str:
    if not bundle.signed:
        return "unsigned: nobody vouches for who made it; what it says has been verified all the same"
    if key is None:
        return "signed, but NOT CHECKED: name the key that must have signed with --key PUB.pem"
    return f"signed by the key of {key.name}"


def _tree(nodes: tuple[NodeReport, ...]) -> Tree:
    """A mark per place: proven, failed, or not proven because something it rests on failed."""
    whole = Tree(_row(nodes[0]))
    branches = {"": whole}
    for node in nodes[1:_ROWS]:
        parent = node.path.rpartition(SEPARATOR)[0]
        branches[node.path] = branches[parent].add(_row(node))
    if len(nodes) > _ROWS:
        whole.add(Text(f"... and {len(nodes) - _ROWS} more"))
    return whole


def _row(node: NodeReport) -> Text:
    name = words.printable(node.path.rpartition(SEPARATOR)[2] or "(the whole)")
    if node.report.valid:
        number = "" if node.level is None else f"  {words.number(node.level)}"
        return Text.assemble(("ok  ", "green"), name, (number, "dim"))
    own = node.blamed == node.path or not any(check.name == "modules" for check in node.report.checks[-1:])
    if own:
        return Text.assemble(("FAILED  ", "bold red"), name, f"  {node.report.reason}")
    return Text.assemble(("--  ", "yellow"), name, ("  rests on what failed", "dim"))
