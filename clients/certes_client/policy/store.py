"""Where a policy's certificates lie: a folder with certificates named by digest, and an index of two tables.

``index.json`` says which certificate answers which question, and which one was accepted last for each model. It is
believed in nothing: a certificate counts after it was verified against the weights and the network at hand.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from certes import strictjson
from certes._version import __version__
from certes.cells import GatedNetwork
from certes.certificate.assembly import ASSEMBLY_SUFFIX, AssemblyBundle
from certes.certificate.document import CERTIFICATE_SUFFIX, Certificate
from certes.errors import InputError
from certes.systems import System

from certes_client.policy.document import ModelPolicy

#: What answers a question: the certificate of a network, or that of an assembly with all that it names.
Document = Certificate | AssemblyBundle

INDEX = "index.json"
_DIGEST = re.compile("[0-9a-f]{64}")


class Store:
    """The folder of a policy's certificates.

    Args:
        folder: made when something is written.

    Raises:
        InputError: the index is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = _index(folder / INDEX)
        self.answers, self.accepted = _digests(index.get("answers")), _digests(index.get("accepted"))

    def answer(self, question: str) -> Document | None:
        """The certificate that answered a question, if it is there."""
        return self._read(self.answers.get(question))

    def last(self, model: str) -> Document | None:
        """The certificate that was accepted last for a model, if it is there."""
        return self._read(self.accepted.get(model))

    def keep(self, question: str, certificate: Document) -> None:
        """Keep an answer.

        Raises:
            InputError: the folder cannot be written.
        """
        self.answers[question] = certificate.digest
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            certificate.write(self.folder)
        except OSError as error:
            raise self._unwritable(error) from error
        self.write()

    def accept(self, model: str, certificate: Document) -> None:
        """Note that a certificate was accepted; :meth:`write` keeps it."""
        self.accepted[model] = certificate.digest

    def write(self) -> None:
        """Write the index, whole or not at all.

        Raises:
            InputError: the folder cannot be written.
        """
        content = {"accepted": self.accepted, "answers": self.answers}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=".index-")
            with os.fdopen(handle, "w") as stream:
                stream.write(json.dumps(content, indent=1, sort_keys=True) + "\n")
            os.replace(name, self.folder / INDEX)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> InputError:
        given = f"{self.folder}: {error.strerror or error}"
        return InputError("certificates", given, "a folder that can be written", "unwritable")

    def _read(self, digest: str | None) -> Document | None:
        """None for what is missing or damaged: it is made anew."""
        if digest is None:
            return None
        try:
            path = self.folder / f"{digest}{ASSEMBLY_SUFFIX}"
            of_assembly = path.is_file()
            found: Document = (
                AssemblyBundle.read(path)
                if of_assembly
                else Certificate.read(self.folder / f"{digest}{CERTIFICATE_SUFFIX}")
            )
            stated = found.statement  # that of an assembly is parsed only here
        except InputError:
            return None
        return found if stated is not None and found.digest == digest else None


def question(model: ModelPolicy, system: System | GatedNetwork) -> str:
    """Digest of what is asked: the network, its weights, and how the answer is looked for."""
    content: dict[str, Any] = {
        "certes": __version__,
        "system": None if model.system is None else model.system.model_dump(mode="json"),
        "weights": [[entry.name, entry.sha256] for role in sorted(system.tensors)
                    for entry in system.tensors[role].subjects],
        "condition": model.condition,
        "rate": model.asked,
    }  # fmt: skip
    return hashlib.sha256(strictjson.canonical(content, "question")).hexdigest()


def _index(path: Path) -> dict[str, Any]:
    try:
        content = strictjson.parse(path.read_bytes(), INDEX)
    except FileNotFoundError:
        return {}
    except OSError as error:
        given = f"{path}: {error.strerror or error}"
        raise InputError("certificates", given, "a folder that can be read", "unreadable") from error
    if not isinstance(content, dict):
        raise InputError("certificates", f"{path}: no object", "an index as 'certes check' writes it", "malformed")
    return content


def _digests(table: Any) -> dict[str, str]:
    """Names and digests; anything else is left out, as if it were not there."""
    entries = table.items() if isinstance(table, dict) else ()
    return {name: value for name, value in entries if isinstance(value, str) and _DIGEST.fullmatch(value)}
