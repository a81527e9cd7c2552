"""Figures of certificates: drawn in a solver process, from a certificate that is verified first. Nothing is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from certes.certificate.assembly import open_assembly
from certes.certificate.assembly_statement import AssemblyStatement
from certes.certificate.check import verify_certificate
from certes.certificate.document import Certificate
from certes.errors import InputError
from certes.systems import System

from certes_service.questions.base import Attachment, Context, Plain, Solved, Spent, question_digest

if TYPE_CHECKING:
    from certes_service.settings import Settings

Theme = Literal["light", "dark"]
#: Under this name the document and its proof travel to a solver process.
_CERTIFICATE = "0" * 64
#: States up to which a field of values is traced for a page.
LARGEST = 600


@dataclass(frozen=True)
class FigureQuestion(Plain):
    """One certificate to draw.

    Attributes:
        weights: the weight file of a network; of an assembly none are needed, its certificate says what is coupled.
        name: of that file.
        theme: for which background.
        levels: of an assembly: module -> its certified rate or factor.
        envelope: the document.
        proof: the proof file.
    """

    kind: ClassVar[str] = "figure"

    weights: bytes = field(repr=False)
    name: str
    theme: Theme = "light"
    levels: Mapping[str, float] = field(default_factory=dict)
    envelope: bytes = field(default=b"", repr=False)
    proof: bytes = field(default=b"", repr=False)

    @classmethod
    def rebuild(cls, parts: Mapping[str, Any], weights: bytes, name: str) -> Self:
        """From :meth:`parts`; document and proof come with the context."""
        return cls(weights, name, parts["theme"], parts["levels"])

    def parts(self) -> dict[str, Any]:
        """Theme and levels."""
        return {"theme": self.theme, "levels": dict(self.levels)}

    def attached(self) -> dict[str, Attachment]:
        """Document and proof, as they travel to a solver process."""
        return {_CERTIFICATE: Attachment(self.envelope, self.proof)}

    def digest(self, settings: Settings) -> str:
        """Never looked up."""
        return question_digest(self.kind, settings, self.weights + self.envelope + self.proof, self.parts())

    def check(self, settings: Settings) -> None:
        """Nothing to look at before."""

    def solve(self, context: Context) -> Solved:
        """Verify and draw; ``svg`` of the answer is the drawing, ``caption`` says what it shows.

        Raises:
            InputError: a certificate that does not hold, or a kind that has no picture. MissingExtraError: matplotlib.
        """
        given = context.stored(_CERTIFICATE)
        assert given is not None
        if not self.weights:
            statement = open_assembly(given.envelope)[1]
            drawing = _assembly(statement, self.levels, self.theme)
            return Solved({"svg": drawing.decode(), "caption": "", "checks": []})
        from certes.figure.drawing import render
        from certes.figure.pictures import picture

        file = context.limits.read(self.weights, self.name)
        certificate = Certificate.from_parts(given.envelope, given.proof)
        report = verify_certificate(certificate, file)
        if not report.valid:
            expected = "a certificate that holds: nothing else is drawn"
            raise InputError("certificate", f"{report.reason}: {report.detail}", expected, str(report.reason))
        system = certificate.statement.predicate.system.system(file)
        if not isinstance(system, System):
            raise InputError("certificate", "a gated cell", "a network with a figure: cells have none", "no-figure")
        if system.size > min(LARGEST, context.limits.states):
            raise InputError("certificate", f"{system.size} states", f"at most {LARGEST}, for a figure", "no-figure")
        shown = picture(system, certificate.array_proof, certificate.claims)
        drawing = render(shown, "svg", self.theme)
        return Solved({"svg": drawing.decode(), "caption": shown.caption, "checks": []})

    def undecided(self, reason: Spent, detail: str) -> Solved:
        """There is no drawing."""
        return Solved({"svg": None, "caption": "", "reason": reason, "detail": detail, "checks": []})


def _assembly(statement: AssemblyStatement, levels: Mapping[str, float], theme: Theme) -> bytes:
    """The graph of an assembly: its modules and couplings, as the certificate names them, the slowest module marked."""
    from certes.figure import GraphEdge, GraphNode, GraphPicture, render_assembly

    said = statement.predicate
    rates = said.claims.rate is not None or said.step is not None  # an Euler map of modules in continuous time
    slow = (min if rates else max)(levels.values(), default=None)
    nodes = tuple(
        GraphNode(module.name, module.states, levels.get(module.name), limiting=levels.get(module.name, 0.0) == slow)
        for module in said.modules
    )
    edges = tuple(GraphEdge(edge.to, edge.source, 1.0, inside=edge.inside) for edge in said.couplings)
    rate, factor = said.claims.rate, said.claims.factor
    level = rate if rate is not None else factor
    shown = GraphPicture(nodes, edges, level, rate is not None, modules_continuous=rates)
    return render_assembly(shown, "svg", theme)
