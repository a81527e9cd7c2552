"""What ``certes certify`` does with a stacked or bidirectional ``torch.nn.RNN``: compose its layers, say it."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certes import words
from certes.cells import GatedNetwork
from certes.composition import torch_layers
from certes.composition.compose import compose
from certes.composition.description import Described
from certes.composition.outcome import Composition
from certes.errors import InputError
from certes.spec import SystemSpec
from certes.systems import System, UnsupportedCell
from certes.weights import WeightFile

from certes_client import assembly_words, composing, output

if TYPE_CHECKING:
    from certes.certificate.assembly import AssemblyBundle

    from certes_client.certifying import Question

#: The worst verdict is that of the whole.
_ORDER = ("contracting", "undecided", "not_contracting")


def is_layered(system: System | GatedNetwork | UnsupportedCell) -> bool:
    """Whether its layers have to be composed."""
    return isinstance(system, UnsupportedCell) and system.cell in torch_layers.CELLS


class Layers:
    """The assemblies of one network, on their way to an answer.

    Args:
        question: what was asked; only ``seconds`` of it has a meaning here.
        spec: the system as described.
        weights: the file.

    Raises:
        InputError: a condition, rate or backend was asked for, or layers that do not fit.
    """

    def __init__(self, question: Question, spec: SystemSpec, weights: WeightFile) -> None:
        expected = "none for a network of several layers, which are composed"
        for option, given, usual in (
            ("--condition", question.condition, "auto"), ("--rate", question.rate, "best"),
            ("--backend", question.backend, "auto"), ("--step", question.system.step_choice, "given"),
        ):  # fmt: skip
            if given != usual:
                raise InputError(option, str(given), expected, "conflict")
        self.question = question
        self.assemblies = torch_layers.of_spec(spec, weights)
        self.answers: dict[str, Composition] = {}
        self.written: dict[str, tuple[AssemblyBundle, Path]] = {}

    def solve(self, progress: Any, server: str | None = None) -> None:
        """Compose them, one after the other; with a server, from the proofs that it has of the layers.

        Raises:
            RemoteError: it did not answer.
        """
        seconds = self.question.seconds
        share = None if seconds is None else seconds / len(self.assemblies)
        for name, assembly in self.assemblies:
            progress(name)
            if server is None:
                self.answers[name] = compose(assembly, seconds=share, progress=progress)
                continue
            from certes_client.remote import composing as remote

            described = remote.composed(server, Described(assembly, "auto"), None, share, progress)
            self.answers[name] = described.compose(seconds=share, progress=progress)

    def write(self, out: Path, key: bytes | None) -> None:
        """The certificates of those that are contracting; their tensors are all in the weight file."""
        for name, found in self.answers.items():
            if found.verdict == "contracting":
                self.written[name] = composing.written(found, out, key, couplings=False)

    @property
    def verdict(self) -> str:
        """Of the whole."""
        return max((found.verdict for found in self.answers.values()), key=_ORDER.index)

    @property
    def claim(self) -> str:
        """What the factors say about torch's network."""
        modes = {found.mode for found in self.answers.values()}
        return torch_layers.claim(self.assemblies, modes.pop() if len(modes) == 1 else None)

    def as_object(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        networks = {}
        for name, found in self.answers.items():
            bundle, path = self.written.get(name, (None, None))
            networks[name] = composing.as_object(found, bundle, path)
        contracting = self.verdict == "contracting"
        return {"verdict": self.verdict, "claim": self.claim if contracting else None, "networks": networks}

    def summary(self) -> None:
        """For a person."""
        file, screen = self.question.file, output.console()
        if len(self.answers) > 1:
            title = f"{words.printable(file.name)}: {len(self.answers)} networks, layers and directions of torch.nn.RNN"
            screen.print(output.headline(self.verdict, title))
        for name, found in self.answers.items():
            composing.summary(name if len(self.answers) > 1 else file.name, found)
            bundle, path = self.written.get(name, (None, None))
            composing.print_files(path, bundle, f"--weights {shlex.quote(str(file))}")
        if self.verdict == "contracting":
            rows = [("of torch", self.claim)]
            if factor := self.slowest:
                rows.append(("", f"slowest: {factor}"))
            screen.print(output.fields(rows))

    @property
    def slowest(self) -> str | None:
        """The largest factor, if there are several networks."""
        if len(self.answers) < 2:
            return None
        name = max(self.answers, key=lambda entry: self.answers[entry].factor or math.inf)
        return f"{name}, factor {assembly_words.level_text(self.answers[name])}"
