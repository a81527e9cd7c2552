"""The disk is full at any moment of a job: a 503, nothing is named that is not there, and then all goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from certes_service.jobs.desk import Answered, Desk
from certes_service.problems import JobFailed
from certes_service.questions import assemblies, certificates, projections
from certes_service.questions.base import Question
from certes_service.storage.errors import StorageError
from certes_service.tenancy.callers import LOCAL

from tests.service.asking import SMALL, SPEC, weights
from tests.service.inside import ask, at_work
from tests.service.test_assemblies import PARTS
from tests.service.test_assemblies import SPEC as ASSEMBLY
from tests.service.test_projections import DENSE


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with at_work(tmp_path_factory.mktemp("full")) as made:
        yield made


def _question(kind: str, k: int) -> Question:
    """Another one for each k: what was stored before would need no room."""
    scale = 1.0 - k / 64
    if kind == "certificate":
        return certificates.question(dict(SPEC), weights(W=np.array(SMALL) * scale), "net.safetensors")
    if kind == "projection":
        return projections.question(dict(SPEC), weights(W=DENSE * scale), "net.safetensors")
    parts = {**PARTS, "a": PARTS["a"] * scale, "b": PARTS["b"] * scale, "up": PARTS["up"] * scale}
    return assemblies.question(dict(ASSEMBLY), weights(**parts), "net.safetensors")


#: Files that each writes: the question's weights, then proofs, envelopes and weights that were made.
FILES = {"certificate": 3, "projection": 4, "assembly": 8}
CASES = [(kind, k) for kind, count in FILES.items() for k in range(count)]


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    ("kind", "k"), [case if case[1] in (0, 1) else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]
)
def test_full_disk_at_any_moment(desk: Desk, monkeypatch: pytest.MonkeyPatch, kind: str, k: int) -> None:
    question, real, count = _question(kind, k), os.replace, [0]

    def full(*paths: Any, **how: Any) -> None:
        count[0] += 1
        if count[0] > k:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*paths, **how)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises((StorageError, JobFailed)) as caught:
        ask(desk, question, wait=60)
    monkeypatch.undo()
    assert count[0] > k, "the fault was met"
    if isinstance(caught.value, JobFailed):
        assert caught.value.members["status"] == 503
        assert "No space left" in caught.value.members["detail"]
    _whole(desk)
    found = ask(desk, question, wait=60)
    assert isinstance(found, Answered)
    assert (found.answer["verdict"], found.answer["cached"]) == ("contracting", False)
    _whole(desk)


def _whole(desk: Desk) -> None:
    """Every certificate that is named is there, with its weights; nothing half-written lies about."""
    for entry in desk.store.list(LOCAL.tenant, limit=1000):
        stored = desk.store.certificate(LOCAL.tenant, entry.digest)  # raises if anything is missing or damaged
        assert stored is not None
        assert stored.weights is None or desk.store.weights(LOCAL.tenant, entry.digest) is not None
    for blob in desk.blobs.walk():
        assert desk.blobs.get(blob.tenant, blob.digest) is not None
    assert not [path for path in (desk.settings.data / "blobs").rglob("*") if path.is_file() and len(path.name) != 64]
