"""Figures and badges of certificates, for pages and for links from elsewhere."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from certes.certificate.assembly import open_assembly
from certes.certificate.document import Certificate

from certes_service import problems
from certes_service.jobs.desk import Desk
from certes_service.questions.figures import FigureQuestion, Theme
from certes_service.storage.store import Stored
from certes_service.web.pages import Pages
from certes_service.web.views import badge, level_of

#: Drawings that are remembered by a process; they are some 50 kB each.
_REMEMBERED = 128
_Key = tuple[str, str, str, bool]


@dataclass(frozen=True)
class Drawing:
    """A figure: SVG, and what it shows in words (empty where others say so)."""

    svg: bytes
    caption: str


class Figures:
    """Draws in solver processes, each figure once.

    Args:
        desk: where certificates and weights are.
        pages: the templates.
    """

    def __init__(self, desk: Desk, pages: Pages) -> None:
        self._desk, self._pages = desk, pages
        # by tenant as well: the speed of an answer tells nothing about what others have asked
        self._known: OrderedDict[_Key, Drawing] = OrderedDict()
        self._turns: dict[_Key, asyncio.Lock] = {}

    async def drawn(self, tenant: str, digest: str, stored: Stored, theme: Theme, *, mine: bool) -> Drawing:
        """The picture of a certificate.

        Args:
            tenant: whose it is.
            digest: its name.
            stored: the certificate.
            theme: for which background.
            mine: whether its owner asks: to others the modules of an assembly tell nothing that is not public.

        Raises:
            Unknown: its weights are not kept any more. InputError: there is no picture of such a proof.
            MissingExtraError: matplotlib is not installed. Busy: there was no time for it.
        """
        key = (tenant, digest, theme, mine)
        turn = self._turns.setdefault(key, asyncio.Lock())
        try:
            async with turn:  # who asks for the same waits for the first
                if key not in self._known:
                    self._known[key] = await self._draw(tenant, stored, theme, mine)
                    if len(self._known) > _REMEMBERED:
                        self._known.popitem(last=False)
                self._known.move_to_end(key)
                return self._known[key]
        finally:
            if not turn.locked():
                self._turns.pop(key, None)

    async def _draw(self, tenant: str, stored: Stored, theme: Theme, mine: bool) -> Drawing:
        weights = await self._desk.in_thread(self._weights, tenant, stored)
        levels = await self._desk.in_thread(self._levels, tenant, stored, mine)
        question = FigureQuestion(weights, "weights.safetensors", theme, levels, stored.envelope, stored.proof)
        answer = await self._desk.verification(tenant, question)
        if answer["svg"] is None:
            raise problems.Busy(f"no figure in time: {answer['reason']}")
        return Drawing(answer["svg"].encode(), answer["caption"])

    def _weights(self, tenant: str, stored: Stored) -> bytes:
        """The weight file of a network's certificate, while a job or the certificate names it."""
        if stored.kind == "assembly":
            return b""
        subject = Certificate.from_parts(stored.envelope, stored.proof).statement.file_subject()
        data = None if subject is None else self._desk.blobs.get(tenant, subject.digest.sha256)
        if data is None:
            expected = "a certificate whose weights are still kept: those of a question go with its job"
            raise problems.Unknown("digest", "a certificate without its weights", expected, "no-weights")
        return data

    def _levels(self, tenant: str, stored: Stored, mine: bool) -> dict[str, float]:
        """Module -> rate or factor, by its own certificate."""
        found: dict[str, float] = {}
        if stored.kind == "assembly":
            for module in open_assembly(stored.envelope)[1].predicate.modules:
                kept = self._desk.store.certificate(tenant, module.certificate)
                if kept is not None and (mine or kept.public) and (level := level_of(kept)) is not None:
                    found[module.name] = level
        return found

    def badge(self, stored: Stored) -> bytes:
        """A badge: what is certified, in one line, as SVG."""
        text, verdict = badge(stored)
        left, right = 52, 14 + 6.4 * len(text)
        colour = {"contracting": "#17693a", "not_contracting": "#a3262a"}.get(verdict, "#7a5200")
        return self._pages.text("badge.svg", text=text, left=left, right=right, colour=colour).encode()
