"""A service that lies is believed in nothing: exit code 4, and no file that says anything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certes
import pytest
from certes.certificate.assembly import AssemblyBundle
from certes.certificate.assembly_check import verify_assembly
from certes.certificate.document import Certificate
from certes.weights import read_weights

from tests.client.running import STABLE, UNSTABLE, inside, network
from tests.client.scripted import Answer, Asked, says, scripted

PLAIN = ("--form", "rate", "--tensor", "W", "--activation", "tanh")


def _certified(W: Any, name: str, folder: Path, **how: Any) -> Certificate:
    """An honest certificate about a file of that name."""
    folder.mkdir(exist_ok=True)
    file = network(folder, W, name)
    activation, step = how.pop("activation", "tanh"), how.pop("step", None)
    from certes.spec import SystemSpec

    given = {"form": "rate", "tensors": {"W": "W"}, "activation": activation}
    system = SystemSpec.parse(given if step is None else given | {"step": step}).system(read_weights(file))
    found = certes.certify(system, **how).certificate
    assert found is not None
    return found


def _service(answer: dict[str, Any], certificate: Certificate | None, proof: bytes | None = None) -> Any:
    """A service that says this, and has that certificate."""

    def script(asked: Asked) -> Answer:
        if asked.method == "POST":
            return says(answer)
        if certificate is None:
            return says({"detail": "none"}, 404)
        if asked.path.endswith("/proof"):
            return says(certificate.proof if proof is None else proof)
        return says(certificate.document)

    return script


def _answer(certificate: Certificate | None, verdict: str = "contracting", **more: Any) -> dict[str, Any]:
    link = None if certificate is None else {"digest": certificate.digest}
    return {"verdict": verdict, "rate": 0.9, "detail": "", "attempts": [], "certificate": link} | more


def _flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 0x40]) + data[-2:]


Lie = Callable[[Path], Any]
LIES: dict[str, Lie] = {
    "no certificate": lambda _: _service(_answer(None), None),
    "a certificate that is nowhere": lambda d: _service(_answer(_certified(STABLE, "bad.safetensors", d)), None),
    "a certificate for other weights": lambda d: _of(d, STABLE),
    "a witness as a proof": lambda d: _of(d, UNSTABLE),
    "a certificate for another step": lambda d: _of(d, UNSTABLE, step=0.1),
    "an answer without a verdict": lambda _: _service({"certificate": None}, None),
    "a verdict of its own": lambda _: _service(_answer(None, "certainly"), None),
    "no JSON": lambda _: [says(b"yes")],
    "a page": lambda _: [says(b"<html>contracting</html>", 200, "text/html")],
    "a refutation without a witness": lambda _: _service(_answer(None, "not_contracting"), None),
    "a digest that is a path": lambda _: _service(_answer(None) | {"certificate": {"digest": "../../x"}}, None),
}


def _of(folder: Path, W: Any, **how: Any) -> Any:
    found = _certified(W, "bad.safetensors", folder, **how)
    return _service(_answer(found), found)


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_no_lie_about_an_unstable_network_is_a_yes(
    lie: Lie, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    network(work, UNSTABLE, "bad.safetensors")
    monkeypatch.chdir(work)
    for more in ((), ("--json",)):
        with scripted(lie(tmp_path / "elsewhere")) as server:
            done = inside(capsys, "certify", "bad.safetensors", *PLAIN, *more, "--server", server.url)
        assert done.code == (2 if lie is LIES["a certificate that is nowhere"] else 4)
        if more:
            assert done.json["verdict"] is None
        else:
            assert done.out == ""
    assert [file.name for file in work.iterdir()] == ["bad.safetensors"]


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_no_lie_makes_a_policy_hold(lie: Lie, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    network(work, UNSTABLE, "bad.safetensors")
    head = '[models.bad]\nfile = "bad.safetensors"\nform = "rate"\n'
    (work / "certes.toml").write_text(head + 'tensors = { W = "W" }\nactivation = "tanh"\n')
    monkeypatch.chdir(work)
    for more in ((), ("--json", "--accept")):
        with scripted(lie(tmp_path / "elsewhere")) as server:
            done = inside(capsys, "check", *more, "--server", server.url)
        assert done.code == (2 if lie is LIES["a certificate that is nowhere"] else 4)
        if more:
            assert done.json["verdict"] is None
        else:
            assert done.out == ""
    assert sorted(file.name for file in work.rglob("*")) == ["bad.safetensors", "certes.toml"]


def test_what_a_policy_asks_for_is_asked_of_the_answer(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An honest certificate of another theorem, or of a lower rate, is not the answer; nor are its numbers believed."""
    work = tmp_path / "work"
    work.mkdir()
    network(work, STABLE, "net.safetensors")
    monkeypatch.chdir(work)
    found = _certified(STABLE, "net.safetensors", tmp_path / "elsewhere", condition="absolute")
    rate = found.statement.predicate.claims.rate
    assert rate is not None
    policy = '[models.net]\nfile = "net.safetensors"\nform = "rate"\ntensors = {W = "W"}\nactivation = "tanh"\n'
    for more, code in (
        ("", 0),
        ('condition = "lure"', 4),
        (f"rate = {1.01 * rate}", 4),
        (f"rate_at_least = {1.01 * rate}", 1),
        (f"rate_at_least = {0.99 * rate}", 0),
    ):
        (work / "certes.toml").write_text(policy + more)
        with scripted(_service(_answer(found, rate=100.0), found)) as server:
            done = inside(capsys, "check", "--server", server.url)
        assert done.code == code, done.out + done.err
        shutil.rmtree(work / ".certes", ignore_errors=True)


@pytest.mark.parametrize(
    "what", ["proof", "document", "rate", "factor", "condition", "activation", "undecided", "honest"]
)
def test_only_the_certificate_that_was_asked_for_is_taken(
    what: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    network(work, STABLE, "net.safetensors")
    monkeypatch.chdir(work)
    how = {"activation": "relu"} if what == "activation" else {}
    found = _certified(STABLE, "net.safetensors", tmp_path / "elsewhere", **{"condition": "absolute", **how})
    script, more = _service(_answer(found), found), ["--condition", "absolute"]
    if what == "proof":
        script = _service(_answer(found), found, _flipped(found.proof))
    elif what == "document":
        envelope = json.loads(found.document)
        envelope["payload"] = envelope["payload"][:-8] + "AAAA" + envelope["payload"][-4:]

        def script(asked: Any) -> Any:
            return says(_answer(found) if asked.method == "POST" else envelope)

    elif what == "rate":
        more += ["--rate", "0.95"]
    elif what == "factor":  # as the map of a step, which contracts less than is asked for
        found = _certified(STABLE, "net.safetensors", tmp_path / "elsewhere", step=0.2)
        script, more = _service(_answer(found), found), ["--step", "0.2", "--rate", "0.5"]
    elif what == "condition":
        more = ["--condition", "lure"]
    elif what == "undecided":
        script = _service(_answer(found, "undecided", reason="margin"), found)
    with scripted(script) as server:
        done = inside(capsys, "certify", "net.safetensors", *PLAIN, *more, "--server", server.url)
    assert done.code == {"honest": 0, "undecided": 3}.get(what, 4), done.err


def test_a_service_that_finds_everything_valid_is_contradicted(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    network(tmp_path, STABLE, "net.safetensors")
    bad = network(tmp_path, UNSTABLE, "bad.safetensors")
    monkeypatch.chdir(tmp_path)
    assert inside(capsys, "certify", "net.safetensors", *PLAIN).code == 0
    with scripted([says({"valid": True, "verdict": "contracting", "detail": "", "checks": []})]) as server:
        assert inside(capsys, "verify", ".", "--weights", bad, "--server", server.url).code == 4
        assert inside(capsys, "verify", ".", "--weights", "net.safetensors", "--server", server.url).code == 0


REPORT = {"verdict": "contracting", "detail": "", "checks": [], "valid": True, "reason": None, "path": None}
INVALID = {"valid": False, "verdict": "undecided", "path": "body", "reason": "missing-child"}


@pytest.mark.parametrize(
    ("remove", "said", "code"),
    [
        (False, {}, 0),
        (True, {}, 4),
        (False, INVALID, 4),
        (True, INVALID, 4),
        (True, INVALID | {"path": "brain/pfc"}, 1),
        (True, INVALID | {"path": "brain/pfc", "reason": "wrong-child"}, 4),
    ],
)
def test_a_service_that_says_otherwise_of_an_assembly_is_contradicted(
    remove: bool, said: dict[str, Any], code: int, tmp_path: Path, capsys: Any
) -> None:
    stored = Path(__file__).parents[1] / "assets" / "certificates" / "composition-v1" / "nested"
    shutil.copytree(stored, tmp_path / "nested")
    bundle = AssemblyBundle.read(stored)
    if remove:
        report = verify_assembly(bundle, stored)
        pfc = next(node.digest for node in report.nodes if node.path == "brain/pfc")
        (tmp_path / "nested" / f"{pfc}.certificate.json").unlink()
    whole = tmp_path / "nested" / f"{bundle.root}.assembly.json"
    with scripted([says(REPORT | said)]) as server:
        done = inside(capsys, "verify", whole, "--weights", tmp_path / "nested", "--server", server.url)
    assert done.code == code, done.err
    assert (done.out == "") == (code == 4)


def test_projected_weights_that_do_not_hold_are_not_written(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The given weights handed back as new ones, with a certificate of others."""
    file = network(tmp_path, UNSTABLE, "bad.safetensors")
    monkeypatch.chdir(tmp_path)
    found = _certified(STABLE, "bad.safetensors", tmp_path / "elsewhere")
    answer = _answer(found, distance=0.0, unchanged=False, result=_answer(found), condition="absolute")

    def script(asked: Asked) -> Answer:
        return says(file.read_bytes()) if asked.path.endswith("/weights") else _service(answer, found)(asked)

    with scripted(script) as server:
        done = inside(capsys, "project", "bad.safetensors", *PLAIN, "--server", server.url)
    assert done.code == 4
    assert not (tmp_path / "bad-projected.safetensors").exists()
