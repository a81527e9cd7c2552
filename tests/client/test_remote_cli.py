"""``--server``: the same output, files and exit codes as without, byte for byte, over real sockets."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.certificate.assembly import AssemblyBundle
from certes.weights import read_weights, write_weights

from tests.client.running import RATE, STABLE, UNSTABLE, Done, inside, network, process
from tests.service.conftest import Running, running
from tests.service.test_training_files import pictures, ts

ROOT = Path(__file__).parents[2]
STORED = ROOT / "tests" / "assets" / "certificates" / "composition-v1"
ROOT_FILE = f"{AssemblyBundle.read(STORED / 'nested').root}.assembly.json"
PLAIN = ("--form", "rate", "--tensor", "W", "--activation", "tanh")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("cli") / "data") as found:
        yield found


class Twice:
    """Runs a command here and against the server, each in a folder of its own with the same files in it."""

    def __init__(self, folder: Path, url: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url, self.capsys, self.monkeypatch = url, capsys, monkeypatch
        self.here, self.there = folder / "a" / "work", folder / "b" / "work"
        for place in (self.here, self.there):
            place.mkdir(parents=True)
            network(place, STABLE, "net.safetensors")
            network(place, UNSTABLE, "bad.safetensors")
            np.savez(place / "net.npz", W=np.asarray(STABLE))  # another format, which travels converted
            np.savez(place / "bad.npz", W=np.asarray(UNSTABLE))

    def run(self, *arguments: object) -> tuple[Done, Done]:
        self.monkeypatch.chdir(self.here)
        here = inside(self.capsys, *arguments)
        self.monkeypatch.chdir(self.there)
        return here, inside(self.capsys, *arguments, "--server", self.url)

    def same(self, *arguments: object) -> Done:
        here, there = self.run(*arguments)
        assert (here.code, here.out) == (there.code, there.out), there.err
        if here.code == 2:
            assert _errors(here) == _errors(there)
        assert _files(self.here) == _files(self.there)
        return there


def _errors(done: Done) -> list[str]:
    """What is said on stderr, without lines of progress."""
    verbs = ("certify: ", "verify: ", "check: ", "project: ", "compose: ", "train: ")
    return [line for line in done.err.splitlines() if not line.startswith(verbs)]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def twice(tmp_path: Path, server: Running, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Twice:
    return Twice(tmp_path, server.url, capsys, monkeypatch)


@pytest.mark.cases(6)
@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("net.safetensors", *RATE), 0),
        (("net.safetensors", *RATE, "--json"), 0),
        (("net.safetensors", *PLAIN, "--step", "max"), 0),
        (("net.safetensors", *PLAIN, "--rate", "0.1"), 0),
        (("net.npz", *RATE, "--json"), 0),
        (("bad.safetensors", *PLAIN), 1),
        (("bad.safetensors", *PLAIN, "--json"), 1),
        (("bad.safetensors", *PLAIN, "--step", "0.1"), 1),
        (("bad.safetensors", *RATE), 1),
        (("net.safetensors", *RATE, "--rate", "5"), 3),
        (("net.safetensors", *RATE, "--rate", "5", "--json"), 3),
        (("net.safetensors", "--form", "rate", "--tensor", "Q", "--activation", "tanh"), 2),
        (("net.safetensors", *PLAIN, "--condition", "odd"), 2),
        (("net.safetensors", *PLAIN, "--rate", "best", "--step", "-1", "--json"), 2),
        (("none.safetensors", *PLAIN), 2),
    ],
)
def test_certify(twice: Twice, options: tuple[str, ...], code: int) -> None:
    assert twice.same("certify", *options).code == code


def _stacks(twice: Twice) -> None:
    """Networks of several layers, or directions, as torch names their tensors."""
    random = np.random.default_rng(0)

    def layers(count: int, ends: tuple[str, ...], scale: float) -> dict[str, Any]:
        shapes = {f"weight_hh_l{k}{end}": (3, 3) for k in range(count) for end in ends}
        shapes |= {f"weight_ih_l{k}{end}": (3, 3 * len(ends) if k else 2) for k in range(count) for end in ends}
        return {name: scale * random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}

    given = {"two": layers(2, ("",), 0.2), "sides": layers(1, ("", "_reverse"), 0.2), "loud": layers(2, ("",), 3.0)}
    for name, arrays in given.items():
        for place in (twice.here, twice.there):
            write_weights(place / f"{name}.safetensors", arrays)


LAYERS = ("--form", "torch-rnn", "--activation", "tanh")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("two.safetensors", *LAYERS, "--out", "o"), 0),
        (("sides.safetensors", *LAYERS, "--json", "--out", "o"), 0),
        (("loud.safetensors", *LAYERS, "--json"), 1),
        (("two.safetensors", *LAYERS, "--rate", "0.5"), 2),
    ],
)
def test_certify_layers(twice: Twice, options: tuple[str, ...], code: int) -> None:
    _stacks(twice)
    assert twice.same("certify", *options).code == code


def test_certify_signs_here(twice: Twice, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(pem)
    assert twice.same("certify", "net.safetensors", *RATE, "--sign", tmp_path / "key.pem", "--json").json[
        "certificate"
    ]["signed"]


@pytest.mark.parametrize("weights", ["net.safetensors", "bad.safetensors", "net.npz", "bad.npz"])
def test_verify(twice: Twice, weights: str) -> None:
    twice.same("certify", "net.safetensors", *RATE)
    for more in ((), ("--json",)):
        done = twice.same("verify", ".", "--weights", weights, *more)
        assert done.code == (0 if weights.startswith("net") else 1)


def _as_npz(file: Path) -> None:
    arrays = {name: entry.array() for name, entry in read_weights(file).tensors.items()}
    file.unlink()
    np.savez(file.with_suffix(".npz"), **arrays)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda _: None, 0),
        (lambda folder: sorted(folder.glob("*.certificate.json"))[0].unlink(), 1),
        (lambda folder: [file.unlink() for file in folder.glob("*.couplings.safetensors")], 1),
        (lambda folder: sorted(folder.glob("*.proof.safetensors"))[0].write_bytes(b"no proof"), 1),
        (lambda folder: write_weights(folder / "networks.safetensors", {"W": np.eye(2)}), 1),
        (lambda folder: (folder / ROOT_FILE).write_text("no certificate"), 1),
        (lambda folder: _as_npz(folder / "networks.safetensors"), 0),
    ],
    ids=[
        "valid",
        "a certificate is gone",
        "couplings are gone",
        "another proof",
        "other weights",
        "no certificate",
        "another format",
    ],
)
def test_verify_assembly(twice: Twice, change: Any, code: int) -> None:
    for place in (twice.here, twice.there):
        shutil.copytree(STORED / "nested", place / "nested")
        change(place / "nested")
    assert twice.same("verify", f"nested/{ROOT_FILE}", "--weights", "nested", "--json").code == code
    if code == 0:
        assert twice.same("verify", "nested", "--weights", "nested", "--key", STORED / "key.pem").code == 0
        assert twice.same("verify", "nested", "--weights", "nested", "--exact").code == 2


@pytest.mark.slow
def test_figure(twice: Twice) -> None:
    twice.same("certify", "net.safetensors", *RATE)
    here, there = twice.run("figure", ".", "--out", "f.svg", "--dark")
    assert (here.code, here.out) == (there.code, there.out) == (0, there.out)
    assert b"<svg" in (twice.there / "f.svg").read_bytes()
    here, there = twice.run("figure", ".", "--out", "f.png")
    assert (here.code, there.code) == (0, 2), "a service draws no such file"


@pytest.mark.cases(4)
@pytest.mark.parametrize(
    "options",
    [
        ("bad.safetensors", *PLAIN),
        ("bad.safetensors", *PLAIN, "--json"),
        ("net.safetensors", *PLAIN, "--json"),
        ("net.npz", *PLAIN, "--json"),
        ("bad.npz", *PLAIN, "--json"),
        ("bad.safetensors", *PLAIN, "--mask", "mask.npy", "--states", "states.npy", "--out", "new.safetensors"),
        ("bad.safetensors", *PLAIN, "--rate", "0.5", "--keep-diagonal"),
        ("bad.safetensors", *PLAIN, "--rate", "2"),
        ("bad.safetensors", *PLAIN, "--condition", "odd"),
    ],
)
def test_project(twice: Twice, options: tuple[str, ...]) -> None:
    for place in (twice.here, twice.there):
        np.save(place / "mask.npy", np.array([[1, 0], [1, 1]]))
        np.save(place / "states.npy", np.random.default_rng(0).standard_normal((20, 2)))
    twice.same("project", *options)


def _assemblies(twice: Twice) -> None:
    for place in (twice.here, twice.there):
        for file in (ROOT / "examples" / "assemblies").iterdir():
            shutil.copy(file, place)
        (place / "nested.json").write_text(json.dumps({"file": "net.safetensors", "modules": {
            "inner": {"modules": {"x": {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"}}},
            "odd": {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh", "tau": 2.0},
        }}))  # fmt: skip


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    "options",
    [
        ("two.yaml",),
        ("two.yaml", "--json", "--out", "o"),
        ("workspace.yaml", "--out", "o"),
        ("two.yaml", "--without", "v1"),
        ("nested.json", "--json"),
        ("nested.json", "--step", "0.1", "--mode", "interface", "--out", "o"),
    ],
)
def test_compose(twice: Twice, options: tuple[str, ...]) -> None:
    _assemblies(twice)
    twice.same("compose", *options)


def test_compose_proves_no_module_here(twice: Twice, monkeypatch: pytest.MonkeyPatch) -> None:
    from certes.composition import compose

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a proof of a module was looked for here")

    _assemblies(twice)
    _stacks(twice)
    monkeypatch.chdir(twice.there)
    monkeypatch.setattr(compose, "offer", refuse)
    assert inside(twice.capsys, "compose", "nested.json", "--server", twice.url).code == 0
    assert inside(twice.capsys, "certify", "two.safetensors", *LAYERS, "--server", twice.url).code == 0
    assert inside(twice.capsys, "compose", "nested.json").code == 4, "the test would notice"


POLICY = """
[models.net]
file = "net.{kind}"
form = "rate"
tensors = {{ W = "W" }}
activation = "tanh"
rate_at_least = 0.1

[models.two]
file = "two.safetensors"
form = "torch-rnn"
activation = "tanh"

[models.nested]
assembly = "nested.json"
"""
BAD = """
[models.bad]
file = "bad.safetensors"
form = "rate"
tensors = { W = "W" }
activation = "tanh"
"""


@pytest.mark.parametrize(
    ("more", "kind", "code"),
    [
        ("", "npz", 0),
        (BAD, "safetensors", 1),
        (BAD.replace("bad.", "net.") + "rate = 5.0\n", "safetensors", 3),
        (BAD + 'condition = "odd"\n', "safetensors", 2),
    ],
    ids=["passed", "failed", "undecided", "error"],
)
def test_check(twice: Twice, monkeypatch: pytest.MonkeyPatch, more: str, kind: str, code: int) -> None:
    _assemblies(twice)
    _stacks(twice)
    for place in (twice.here, twice.there):
        (place / "certes.toml").write_text(POLICY.format(kind=kind) + more)
    name = ("bad",) if code else ()
    assert twice.same("check", "--json", *name).code == code
    if code:
        return
    assert (twice.there / ".certes" / "index.json").exists()
    for form in ("table", "sarif"):
        twice.same("check", "--format", form, "--accept")
    monkeypatch.setenv("CERTES_SERVER", "http://127.0.0.1:9")
    assert inside(twice.capsys, "check").code == 0, "what is known already, nobody is asked"


def test_check_searches_nothing_here(twice: Twice, monkeypatch: pytest.MonkeyPatch) -> None:
    from certes.composition import compose
    from certes_client.policy import subjects

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a proof was looked for here")

    _assemblies(twice)
    _stacks(twice)
    (twice.there / "certes.toml").write_text(POLICY.format(kind="npz"))
    monkeypatch.chdir(twice.there)
    monkeypatch.setattr(subjects, "certify", refuse)
    monkeypatch.setattr(compose, "offer", refuse)
    assert inside(twice.capsys, "check").code == 4, "the test would notice"
    monkeypatch.setenv("CERTES_SERVER", twice.url)
    assert inside(twice.capsys, "check").code == 0


@pytest.mark.slow
def test_train(twice: Twice) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(2, size=64)
    inputs = (random.standard_normal((64, 8, 3)) + labels[:, None, None]).astype(np.float32)
    for place in (twice.here, twice.there):
        np.savez(place / "data.npz", inputs=inputs, labels=labels)
    for options in (("--modules", "2x3"), ("--modules", "3", "--guarantee", "continuous", "--json")):
        assert twice.same("train", "data.npz", "--out", "made", "--epochs", "2", *options).code == 0
    assert twice.same("train", "data.npz", "--out", "none", "--epochs", "2", "--seconds", "1e-4", "--json").code == 3
    assert not (twice.there / "none" / "report.json").exists()
    for place in (twice.here, twice.there):
        (place / "Toy_TRAIN.ts").write_bytes(ts())
        (place / "Toy_TEST.ts").write_bytes(ts(20, 1))
        for name, data in zip(("images-idx3", "labels-idx1"), pictures(), strict=True):
            (place / f"train-{name}-ubyte").write_bytes(data)
    for data in ("Toy_TRAIN.ts", "mnist-pixels:."):
        assert twice.same("train", data, "--out", "more", "--epochs", "1", "--modules", "3", "--json").code == 0
    assert twice.same("train", "data.npz", "--out", "none", "--topology", "odd").code == 2


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("certify net.safetensors --form rate --tensor W --activation tanh", 4),
        ("project bad.safetensors --form rate --tensor W --activation tanh", 4),
        ("check", 4),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_server_that_is_not_there_certifies_nothing(
    twice: Twice, monkeypatch: pytest.MonkeyPatch, command: str, code: int, as_json: bool
) -> None:
    from certes_client.remote import talk

    monkeypatch.setattr(talk.Retry, "pause", lambda *_: 0.01)
    monkeypatch.chdir(twice.there)
    Path("certes.toml").write_text(BAD)
    arguments = [*shlex.split(command), *(["--json"] if as_json else []), "--server", "http://127.0.0.1:9"]
    done = inside(twice.capsys, *arguments)
    assert done.code == code
    if as_json:
        assert done.json["type"] == "urn:certes:error:unreachable"
        assert done.json["verdict"] is None
    else:
        assert done.out == ""
        assert "cannot be reached" in done.err


def test_an_address_that_is_none_is_bad_input(twice: Twice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(twice.there)
    done = inside(twice.capsys, "certify", "net.safetensors", *RATE, "--server", "nowhere", "--json")
    assert (done.code, done.json["field"]) == (2, "--server")
    monkeypatch.setenv("CERTES_SERVER", "nowhere")
    done = inside(twice.capsys, "certify", "net.safetensors", *RATE, "--json")
    assert (done.code, done.json["field"]) == (2, "--server"), "the environment says where"


@pytest.mark.slow
def test_a_key_that_is_refused_is_bad_input(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network(tmp_path)
    monkeypatch.chdir(tmp_path)
    with running(tmp_path / "data", keys=True) as server:
        done = inside(capsys, "certify", "net.safetensors", *RATE, "--server", server.url, "--json")
        assert (done.code, done.json["status"]) == (2, 401)
        made = process("keys", "create", "--tenant", "t", "--name", "n", "--data", tmp_path / "data", "--json")
        monkeypatch.setenv("CERTES_API_KEY", made.json["key"])
        assert inside(capsys, "certify", "net.safetensors", *RATE, "--server", server.url).code == 0


def test_the_client_needs_no_solver_of_others_and_no_torch(twice: Twice) -> None:
    """Certify, project and compose against a server load neither torch nor cvxpy nor the service."""
    before = (
        "import sys\n"
        "class Not:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'cvxpy', 'scs', 'fastapi', 'certes_service'):\n"
        "            raise ModuleNotFoundError(name, name='torch')\n"
        "sys.meta_path.insert(0, Not())\n"
    )
    done = process("certify", "net.safetensors", *RATE, "--server", twice.url, before=before, cwd=twice.there)
    assert done.code == 0, done.err
    assert done.out.startswith("contracting")
