"""certes project: a new file that is certified, or none; every option, the JSON object, the summary, the attacks."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
from certes.certificate import Certificate
from certes.weights import pack, read_weights, to_bytes, write_weights
from certes_client import projecting

from tests.client.running import STABLE, UNSTABLE, inside, network, process

Capture = pytest.CaptureFixture[str]
TANH = ("--form", "rate", "--tensor", "W", "--activation", "tanh")
#: quick: closed form, no search
QUICK = (*TANH, "--condition", "absolute")
DENSE = np.array([[0.0, -2.5], [2.5, 0.3]], np.float32)


def ask(capsys: Capture, folder: Path, net: Path, *options: object) -> Any:
    return inside(capsys, "project", net, "--out", folder / "out" / "new.safetensors", "--json", *options)


def checked(answer: Any, given: Path) -> np.ndarray[Any, Any]:
    """The new file verifies with the certificate beside it, and differs from the given one only where it says so."""
    out, link = answer["out"], answer["certificate"]
    path = Path(out["path"])
    assert list(out) == ["path", "sha256", "changed"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == out["sha256"]
    assert list(link) == ["path", "digest", "proof", "signed"]
    assert Path(link["path"]).parent == Path(link["proof"]).parent == path.parent
    report = certes.verify(link["path"], path)
    assert (report.valid, report.verdict) == (True, "contracting")
    certificate = Certificate.read(link["path"])
    subjects = certificate.statement.subject
    assert (subjects[0].name, subjects[0].digest.sha256) == (path.name, out["sha256"])
    assert certificate.digest == link["digest"] == answer["result"]["certificate"]["digest"]
    old, new = read_weights(given), read_weights(path)
    assert list(old) == list(new)
    assert old.metadata == new.metadata
    assert [name for name in old if old.tensors[name].sha256 != new.tensors[name].sha256] == out["changed"]
    assert {n: (t.dtype, t.shape) for n, t in old.tensors.items()} == {
        n: (t.dtype, t.shape) for n, t in new.tensors.items()
    }
    assert sorted(entry.name for entry in path.parent.iterdir() if entry.name.startswith(".")) == []
    return new.tensors[subjects[1].name.partition("#")[2]].floats()


def test_shape_of_the_object_and_same_answer_as_python(capsys: Capture, tmp_path: Path) -> None:
    net = network(tmp_path, DENSE, extra=np.arange(3.0))
    done = ask(capsys, tmp_path, net, *TANH)
    assert done.code == 0, done.err
    answer, found = done.json, certes.project(certes.RateNetwork(DENSE, "tanh"))
    plain = found.to_json()
    assert list(answer) == ["verdict", *plain, "out", "certificate"]
    for name in plain:
        if name != "result":
            assert answer[name] == plain[name], name
    assert {**answer["result"], "certificate": None} == {**plain["result"], "certificate": None}
    np.testing.assert_array_equal(checked(answer, net), found.system.W)
    assert answer["out"]["changed"] == ["W"]
    assert answer["distance"] < answer["shrink_distance"]
    assert stat.S_IMODE(Path(answer["out"]["path"]).stat().st_mode) == 0o644


def test_unchanged_is_byte_for_byte_the_given_file(capsys: Capture, tmp_path: Path) -> None:
    net = network(tmp_path, STABLE)
    data = bytearray(net.read_bytes())
    length = int.from_bytes(data[:8], "little")  # a header that we would not write so: more spaces at its end
    net.write_bytes(
        (length + 8).to_bytes(8, "little") + bytes(data[8 : 8 + length]) + b" " * 8 + bytes(data[8 + length :])
    )
    answer = ask(capsys, tmp_path, net, *QUICK).json
    assert (answer["unchanged"], answer["distance"], answer["out"]["changed"]) == (True, 0.0, [])
    checked(answer, net)
    assert Path(answer["out"]["path"]).read_bytes() == net.read_bytes()
    text = inside(capsys, "project", net, *QUICK, "--out", tmp_path / "n.safetensors").out
    assert "unchanged" in text


def test_idempotent(capsys: Capture, tmp_path: Path) -> None:
    first = ask(capsys, tmp_path, network(tmp_path, DENSE), *TANH).json
    again = inside(capsys, "project", first["out"]["path"], *TANH, "--out", tmp_path / "b.safetensors", "--json").json
    assert again["unchanged"]
    assert (tmp_path / "b.safetensors").read_bytes() == Path(first["out"]["path"]).read_bytes()


def test_default_name_is_here(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    answer = inside(capsys, "project", network(tmp_path, DENSE), *QUICK, "--json").json
    assert answer["out"]["path"] == "net-projected.safetensors"
    assert {entry.suffix for entry in elsewhere.iterdir()} == {".json", ".safetensors"}
    assert len(list(elsewhere.iterdir())) == 3


@pytest.mark.parametrize("options", [("--step", "0.5"), ("--tau", "1,2"), ("--rate", "0.3"), ("--form", "hopfield")])
def test_systems(capsys: Capture, tmp_path: Path, options: tuple[str, ...]) -> None:
    net = network(tmp_path, DENSE)
    answer = ask(capsys, tmp_path, net, *QUICK, *options).json
    checked(answer, net)
    stated = Certificate.read(answer["certificate"]["path"]).statement.predicate.system
    assert stated.step == (0.5 if "--step" in options else None)
    assert stated.tau == ([1.0, 2.0] if "--tau" in options else None)
    assert stated.form == ("hopfield" if "hopfield" in options else "rate")
    if "--rate" in options:
        assert answer["rate"] == 0.3
        assert answer["result"]["rate"] >= 0.3


def test_torch_rnn_in_half_precision_with_a_name_in_unicode(capsys: Capture, tmp_path: Path) -> None:
    import ml_dtypes

    rng = np.random.default_rng(1)
    name = "модуль ü.rnn.weight_hh_l0"
    tensors = {
        name: ("BF16", [4, 4], rng.standard_normal((4, 4)).astype(ml_dtypes.bfloat16).tobytes()),
        "other": ("U8", [3], b"abc"),
    }
    net = tmp_path / "netz ü.safetensors"
    net.write_bytes(pack(tensors, {"note": "ü"}))
    options = ("--form", "torch-rnn", "--activation", "tanh", "--condition", "singular")
    answer = ask(capsys, tmp_path, net, *options).json
    weights = checked(answer, net)
    np.testing.assert_array_equal(weights, weights.astype(ml_dtypes.bfloat16).astype(np.float64))
    assert answer["out"]["changed"] == [name]
    assert "модуль" in inside(capsys, "project", net, *options, "--out", tmp_path / "n.safetensors").out


def test_sparse_weights(capsys: Capture, tmp_path: Path) -> None:
    import scipy.sparse

    W = scipy.sparse.csr_array(np.array([[0.0, 3.0, 0.0], [0.0, 0.5, -2.0], [1.0, 0.0, 0.0]]))
    net = tmp_path / "sparse.safetensors"
    net.write_bytes(to_bytes({"W": W}))
    answer = ask(capsys, tmp_path, net, *TANH).json
    assert answer["out"]["changed"] == ["W.data"]
    assert certes.verify(answer["certificate"]["path"], answer["out"]["path"]).valid


MASK = np.array([[1, 1], [0, 1]])


@pytest.mark.parametrize("kind", ["tensor", "bool tensor", "npy", "safetensors", "npz"])
def test_mask(capsys: Capture, tmp_path: Path, kind: str) -> None:
    net = network(tmp_path, DENSE, M=MASK.astype(np.float32), B=MASK.astype(bool))
    np.save(tmp_path / "m.npy", MASK.astype(bool))
    np.savez(tmp_path / "m:x.npz", one=MASK, two=MASK * 2)
    write_weights(tmp_path / "m.safetensors", {"a:b": MASK.astype(np.int64), "c": MASK.astype(np.int64)})
    text = {"tensor": "M", "bool tensor": "B", "npy": tmp_path / "m.npy", "npz": f"{tmp_path}/m:x.npz:one"}
    text["safetensors"] = f"{tmp_path}/m.safetensors:a:b"
    W = checked(answer := ask(capsys, tmp_path, net, *QUICK, "--mask", text[kind]).json, net)
    assert W[1, 0] == DENSE[1, 0], "a weight that may not move stays bit for bit"
    assert answer["distance"] > 0


@pytest.mark.slow
def test_zeros_diagonal_and_rank(capsys: Capture, tmp_path: Path) -> None:
    net = network(tmp_path, DENSE)
    W = checked(ask(capsys, tmp_path, net, *QUICK, "--keep-zeros").json, net)
    assert W[0, 0] == 0
    W = checked(ask(capsys, tmp_path, net, *QUICK, "--keep-diagonal").json, net)
    assert (np.diag(W) == np.diag(DENSE)).all()
    net = network(tmp_path, 3 * np.random.default_rng(0).standard_normal((4, 4)))
    W = checked(ask(capsys, tmp_path, net, *TANH, "--condition", "singular", "--rank", "2").json, net)
    assert np.linalg.matrix_rank(W) == 2


def test_weightings_agree(capsys: Capture, tmp_path: Path) -> None:
    """S as a tensor, as the states it comes from, and as the sequences that lead to them: the same question."""
    rng = np.random.default_rng(2)
    U, b, inputs = rng.standard_normal((2, 3)), rng.standard_normal(2), rng.standard_normal((3, 7, 3))
    x, seen = np.zeros((3, 2)), []
    for k in range(7):
        seen.append(x)
        x = 0.5 * x + 0.5 * np.tanh(x @ DENSE.astype(np.float64).T + inputs[:, k] @ U.T + b)
    states = np.stack(seen, axis=1)
    S = np.einsum("ntk,ntl->kl", states, states) / 21
    net = network(tmp_path, DENSE, U=U, b1=b / 2, b2=b / 2, S=S)
    np.save(tmp_path / "states.npy", states)
    np.savez(tmp_path / "data.npz", inputs=inputs, labels=np.zeros(3))
    run = ("--sequences", tmp_path / "data.npz", "--input", "U", "--bias", "b1", "--bias", "b2")
    ways = (("--weighting", "S"), ("--states", tmp_path / "states.npy"), run)
    answers = [ask(capsys, tmp_path, net, *TANH, "--step", "0.5", *way).json for way in ways]
    for answer in answers:
        assert answer["norm"] == "weighted"
        assert answer["distance"] == pytest.approx(answers[0]["distance"], rel=1e-3)
    checked(answers[-1], net)


def test_signed(capsys: Capture, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    answer = ask(capsys, tmp_path, network(tmp_path, DENSE), *QUICK, "--sign", tmp_path / "key.pem").json
    assert answer["certificate"]["signed"] is True
    public = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    assert certes.verify(answer["certificate"]["path"], answer["out"]["path"], key=public).valid


def test_not_certified_writes_nothing(capsys: Capture, tmp_path: Path) -> None:
    net = network(tmp_path, [[3.0, 0.0], [0.0, 0.5]])
    np.save(tmp_path / "m.npy", np.zeros((2, 2), bool))
    options = (*TANH, "--mask", tmp_path / "m.npy")
    done = ask(capsys, tmp_path, net, *options)
    assert (done.code, done.json["verdict"], done.json["out"], done.json["certificate"]) == (3, "undecided", None, None)
    assert list((tmp_path / "out").iterdir()) == []
    text = inside(capsys, "project", net, *options, "--out", tmp_path / "n.safetensors")
    assert text.code == 3
    assert text.out.startswith("undecided  net.safetensors")
    for word in ("reason", "stable sets", "try next", "no file was written"):
        assert word in text.out


def test_summary(capsys: Capture, tmp_path: Path) -> None:
    target = tmp_path / "new net.safetensors"
    done = inside(capsys, "project", network(tmp_path, DENSE), *TANH, "--out", target)
    first, *rest = done.out.splitlines()
    assert first == "contracting  new net.safetensors: rate network, n = 2, tanh, continuous time"
    text = "\n".join(rest)
    for word in ("distance", "Frobenius norm", "% of the weights", "shrinking", "exp(-", "proven by", "stable sets",
                 "certificate", "unsigned", "certes verify", f"'{target}'", "new: W"):  # fmt: skip
        assert word in text, word


def test_certify_advises_it(capsys: Capture, tmp_path: Path) -> None:
    for W in (UNSTABLE, [[0.0, -1.2], [1.2, 0.0]]):
        done = inside(capsys, "certify", network(tmp_path, W), *QUICK, "--out", tmp_path)
        assert "certes project FILE" in done.out
    assert "certes project" not in inside(capsys, "certify", network(tmp_path), *QUICK, "--out", tmp_path).out


def files(folder: Path) -> None:
    """Arrays of every unfit kind."""
    np.save(folder / "wide.npy", np.ones((2, 3), bool))
    np.save(folder / "twos.npy", 2 * np.ones((2, 2)))
    np.save(folder / "objects.npy", np.array([[None, 1], [2, 3]], dtype=object), allow_pickle=True)
    np.savez(folder / "objects.npz", states=np.array([None], dtype=object))
    np.savez(folder / "two.npz", a=np.ones((4, 2)), b=np.ones((4, 2)))
    np.save(folder / "nan.npy", np.full((4, 2), np.nan))
    (folder / "short.npy").write_bytes((folder / "nan.npy").read_bytes()[:-8])
    (folder / "text.npz").write_bytes(b"PK nonsense")
    (folder / "folder").mkdir()
    (folder / "folder.safetensors").mkdir()


#: name -> (options; @ stands for the folder of :func:`files`, field of the error)
BAD = {
    "lure form": ("--form lure", "--form"),
    "no such form": ("--form mlp", "--form"),
    "step max": ("--step max", "--step"),
    "step zero": ("--step 0", "--step"),
    "step too long": ("--step 2.5", "--step"),
    "condition": ("--condition product", "--condition"),
    "rate 1": ("--rate 1", "--rate"),
    "rate nan": ("--rate nan", "--rate"),
    "rate 0": ("--rate 0", "--rate"),
    "factor below the floor": ("--step 0.5 --rate 0.4", "--rate"),
    "factor 1": ("--step 0.5 --rate 1", "--rate"),
    "rank 0": ("--rank 0", "--rank"),
    "rank and zeros": ("--rank 1 --keep-zeros", "--mask, --keep-zeros, --keep-diagonal, --rank"),
    "mask shape": ("--mask @/wide.npy", "--mask"),
    "mask values": ("--mask @/twos.npy", "--mask"),
    "mask nan": ("--mask N", "--mask"),
    "mask unknown": ("--mask nowhere", "--mask"),
    "mask pickle": ("--mask @/objects.npy", "--mask"),
    "mask name of npy": ("--mask @/wide.npy:a", "--mask"),
    "weighting unknown": ("--weighting nowhere", "--weighting"),
    "weighting nan": ("--weighting N", "--weighting"),
    "weighting shape": ("--weighting V", "--weighting"),
    "weighting asymmetric": ("--weighting A", "--weighting"),
    "weighting indefinite": ("--weighting D", "--weighting"),
    "weighting integers": ("--weighting I", "--weighting"),
    "weighting zero": ("--weighting Z", "--weighting"),
    "states pickle": ("--states @/objects.npz", "--states"),
    "states which": ("--states @/two.npz", "--states"),
    "states nan": ("--states @/nan.npy", "--states"),
    "states short": ("--states @/short.npy", "--states"),
    "states no zip": ("--states @/text.npz", "--states"),
    "states shape": ("--states @/wide.npy", "--states"),
    "states none": ("--states @/none.npy", "--states"),
    "states folder": ("--states @/folder", "--states"),
    "sequences continuous": ("--sequences @/two.npz:a --input V", "--sequences"),
    "sequences no input": ("--step 1 --sequences @/nan.npy", "--input"),
    "sequences shape": ("--step 1 --sequences @/nan.npy --input V", "--sequences"),
    "input alone": ("--input V", "--input"),
    "bias alone": ("--bias V", "--bias"),
    "two weightings": ("--weighting V --states @/nan.npy", "--states"),
    "seed": ("--seed -1", "--seed"),
    "starts": ("--starts 0", "--starts"),
    "seconds": ("--seconds 0", "--seconds"),
    "seconds nan": ("--seconds nan", "--seconds"),
    "out folder": ("--out @/folder", "--out"),
    "out folder with suffix": ("--out @/folder.safetensors", "--out"),
    "out suffix": ("--out @/new.bin", "--out"),
    "out device": ("--out /dev/null", "--out"),
    "out below a file": ("--out @/nan.npy/new.safetensors", "--out"),
    "out long": (f"--out @/{'n' * 300}.safetensors", "--out"),
    "sign": ("--sign @/none.pem", "--sign"),
    "tensor not square": ("--tensor V", "W"),
    "tensor unknown": ("--tensor nowhere", "--tensor"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(capsys: Capture, tmp_path: Path, name: str) -> None:
    text, field = BAD[name]
    more = {"N": np.full((2, 2), np.nan), "V": np.ones((2, 3)), "D": np.diag([1.0, -1.0]), "I": np.eye(2, dtype=int)}
    net = network(tmp_path, DENSE, **more, Z=np.zeros((2, 2)), A=np.array([[1.0, 2.0], [0.0, 1.0]]))
    files(tmp_path)
    options = text.replace("@", str(tmp_path)).split()
    before = sorted(tmp_path.rglob("*"))
    out = () if "--out" in options else ("--out", tmp_path / "new.safetensors")
    done = inside(capsys, "project", net, *TANH, *out, "--json", *options)
    assert (done.code, done.json["verdict"], done.json["field"]) == (2, None, field), done.json
    assert sorted(tmp_path.rglob("*")) == before, "nothing was written"


def test_a_tensor_with_the_name_of_an_option(capsys: Capture, tmp_path: Path) -> None:
    net = write_weights(tmp_path / "net.safetensors", {"rate": np.full((2, 2), np.nan)})
    done = ask(capsys, tmp_path, net, "--form", "rate", "--tensor", "rate", "--activation", "tanh")
    assert (done.code, done.json["field"]) == (2, "rate")


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    net = network(tmp_path, DENSE)
    done = process("project", net, *QUICK, "--json", "--out", os.fsdecode(bytes(tmp_path) + b"/\xff.safetensors"))
    assert done.code == 2, done.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.safetensors"]


def test_unsupported_cell_is_bad_input(capsys: Capture, tmp_path: Path) -> None:
    net = write_weights(tmp_path / "gru.safetensors", {"rnn.weight_hh_l0": np.zeros((6, 2), np.float32)})
    done = ask(capsys, tmp_path, net, "--form", "torch-rnn", "--activation", "tanh")
    assert (done.code, done.json["field"]) == (2, "--form")


def test_onto_the_given_file_only_if_asked(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(tmp_path, DENSE)
    given = net.read_bytes()
    monkeypatch.chdir(tmp_path)
    assert inside(capsys, "project", net.name, *QUICK, "--json").code == 0
    assert net.read_bytes() == given
    answer = inside(capsys, "project", net, *QUICK, "--out", net, "--json").json
    assert net.read_bytes() != given
    assert certes.verify(answer["certificate"]["path"], net).valid


def test_a_link_is_replaced_and_not_followed(capsys: Capture, tmp_path: Path) -> None:
    net = network(tmp_path, DENSE)
    given, link = net.read_bytes(), tmp_path / "link.safetensors"
    link.symlink_to(net)
    assert inside(capsys, "project", net, *QUICK, "--out", link, "--json").code == 0
    assert net.read_bytes() == given
    assert not link.is_symlink()


FAIL = """
import certes_client.projecting as p, pathlib, os
real_replace, real_fsync, count = pathlib.Path.replace, os.fsync, [0]
{code}
"""
FULL = """
def full(handle):
    count[0] += 1
    if count[0] == {k}:
        raise OSError(28, "No space left on device")
    real_fsync(handle)
os.fsync = full
"""
KILL = """
def killed(self, target):
    if str(target).endswith("new.safetensors"):
        os.kill(os.getpid(), 9)
    return real_replace(self, target)
pathlib.Path.replace = killed
"""


@pytest.mark.cases(1)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_full_disk_leaves_no_new_file(tmp_path: Path, k: int) -> None:
    """At the weights, the proof, the certificate: bad input that names --out, and never weights without certificate."""
    target = tmp_path / "out" / "new.safetensors"
    before = FAIL.format(code=FULL.format(k=k))
    done = process("project", network(tmp_path, DENSE), *QUICK, "--out", target, "--json", before=before)
    assert done.code == 2, done.err
    assert (done.json["field"], "No space left" in done.json["given"]) == ("--out", True)
    left = [entry.name for entry in target.parent.iterdir()]
    assert len(left) == (1 if k == 3 else 0), left  # a proof that nothing names
    assert not target.exists()


@pytest.mark.slow
def test_killed_before_the_last_step(tmp_path: Path) -> None:
    target = tmp_path / "out" / "new.safetensors"
    net = network(tmp_path, DENSE)
    done = process("project", net, *QUICK, "--out", target, before=FAIL.format(code=KILL))
    assert done.code == -9
    assert not target.exists(), "the weights' own name comes last"
    left = next(target.parent.glob("*.certificate.json"))
    assert certes.verify(left, net).reason in ("wrong-weights", "wrong-file")
    again = process("project", net, *QUICK, "--out", target, "--json")
    assert again.json["certificate"]["path"] == str(left)
    assert certes.verify(left, target).valid


def test_what_does_not_verify_is_an_internal_error(capsys: Capture, tmp_path: Path, monkeypatch: Any) -> None:
    """A file that is not the projected one: exit 4, nothing written."""
    other = to_bytes({"W": DENSE * np.float32(1.5)})
    monkeypatch.setattr("certes.projection.files.rewritten", lambda file, changed: other)
    done = ask(capsys, tmp_path, network(tmp_path, DENSE), *QUICK)
    assert (done.code, done.json["type"]) == (4, "urn:certes:error:internal")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_proof_that_the_verifier_refuses_is_an_internal_error(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from certes.verify.report import Check, Report

    refused = Report("undecided", (Check("weights", False, "x", None),), "wrong-weights", "x")
    monkeypatch.setattr("certes.projection.files.verify_certificate", lambda *_, **__: refused)
    done = ask(capsys, tmp_path, network(tmp_path, DENSE), *QUICK)
    assert (done.code, done.json["type"]) == (4, "urn:certes:error:internal")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_changes_meanwhile(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for W in (DENSE, np.array(STABLE)):
        net, real = network(tmp_path, W, other=np.ones(2)), certes.project

        def meddling(*given: Any, net: Path = net, W: Any = W, real: Any = real, **options: Any) -> Any:
            found = real(*given, **options)
            network(net.parent, W, other=np.zeros(2))
            return found

        monkeypatch.setattr(certes, "project", meddling)
        done = ask(capsys, tmp_path, net, *QUICK)
        monkeypatch.undo()
        assert (done.code, done.json["type"]) == (2, "urn:certes:error:file-changed")
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(capsys: Capture, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    done = inside(capsys, "project", network(tmp_path, DENSE), *QUICK, "--out", folder / "n.safetensors", "--json")
    assert (done.code, done.json["field"]) == (2, "--out")
    shutil.rmtree(folder)


def test_interrupted_is_130(tmp_path: Path) -> None:
    before = "import certes\ndef stop(*a, **k): raise KeyboardInterrupt\ncertes.project = stop"
    done = process("project", network(tmp_path, DENSE), *QUICK, before=before, cwd=tmp_path)
    assert done.code == 130
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.safetensors"]


def test_the_module_keeps_the_command_line_light(tmp_path: Path) -> None:
    """Listing the verbs loads no numerical library."""
    code = "import sys, certes_client.projecting\nassert not {'scipy', 'torch', 'clarabel'} & set(sys.modules)"
    assert process("--version", before=code).code == 0
    assert projecting.project.__doc__
