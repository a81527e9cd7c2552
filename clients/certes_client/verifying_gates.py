"""What ``certes verify`` says of a network with a gate (:mod:`certes.input_gate`), from the folder that describes it.

A certificate speaks of the map where the gate is open. What follows for every step that the gate can leave depends on
its least share, which stands in the description: so that has to be of the network that was certified, and the report
of a training beside it may not say otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from certes.certificate.assembly import AssemblyBundle
from certes.certificate.assembly_check import verify_assembly
from certes.errors import InputError

Gated = dict[str, float | None]

#: Names in the folder of a training, see :mod:`certes.trained`, which would bring all of composition with it.
DESCRIPTION, REPORT = "assembly.json", "report.json"
#: Bytes of a file that is looked at.
_MOST = 2**26


def gated(bundle: AssemblyBundle, folder: Path) -> Gated | None:
    """What follows from a certificate for the network that is described in a folder, whatever its gate does.

    Args:
        bundle: a certificate, verified.
        folder: with ``assembly.json``, and perhaps the report of a training.

    Returns:
        ``least``, ``rate`` and ``factor``; None: no gate is described.

    Raises:
        InputError: a gate that cannot be, that of another network than the certified one, or one of which the report
            says something else.
    """
    described, report = _object(folder / DESCRIPTION), _object(folder / REPORT)
    mine = report.get("certificate") == bundle.root
    if described.get("gate") is None and not (mine and report.get("gate")):
        return None
    from certes.composition.description import read

    there = read(folder / DESCRIPTION)
    if not verify_assembly(bundle, there.assembly).valid:
        given = f"a gate of another network than the certified one: modules, couplings or steps of {DESCRIPTION} differ"
        raise InputError("assembly.gate", given, "the network of the certificate", "wrong-system")
    claims = bundle.statement.predicate.claims
    found = None if there.gate is None else there.gate.to_json(claims.rate, claims.factor)
    if mine and report.get("gate") != found:
        given = f"{json.dumps(report.get('gate'))[:200]} in {REPORT}"
        raise InputError("report.gate", given, f"{json.dumps(found)}, as {DESCRIPTION} says", "wrong-system")
    return found


def _object(path: Path) -> dict[str, Any]:
    """What a file of JSON says; nothing of a file that is none."""
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= _MOST else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
