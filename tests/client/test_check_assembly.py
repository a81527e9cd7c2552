"""certes check of assemblies and stacked layers: what is demanded of the whole, and every way to get round it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from certes import RateNetwork, certify
from certes.certificate.assembly import AssemblyBundle
from certes.composition.certificates import certified
from certes.composition.compose import compose
from certes.composition.description import read
from certes.composition.whole import flattened
from certes.trained import DESCRIPTION
from certes.weights import read_weights, write_weights
from certes_client.policy.document import Policy
from certes_client.policy.inspecting import first_policy
from certes_client.policy.subjects import Composed

from tests.client.running import inside
from tests.client.test_check import check, keys, only

Capture = pytest.CaptureFixture[str]
MODULE = {"form": "rate", "activation": "tanh"}
MODULES = {name: {**MODULE, "tensors": {"W": name}} for name in ("a", "b")}
COUPLINGS = [{"to": "b", "from": "a", "tensor": "up"}, {"to": "a", "from": "b", "tensor": "down"}]
ARRAYS = {"a": np.diag([0.2, -0.3]), "b": np.diag([0.4, 0.1]), "up": 0.3 * np.eye(2), "down": 0.1 * np.eye(2)}


def weights(folder: Path, **changes: Any) -> None:
    write_weights(folder / "w.safetensors", {**ARRAYS, **changes})


def describe(path: Path, **changes: Any) -> None:
    given = {"file": "w.safetensors", "modules": MODULES, "couplings": COUPLINGS, "mode": "interface", **changes}
    path.write_text(yaml.safe_dump(given, sort_keys=False))


def repository(folder: Path, more: str = "", head: str = "", name: str = "net.yaml") -> Path:
    """A folder with one assembly and a policy for it."""
    weights(folder)
    describe(folder / "net.yaml")
    (folder / "certes.toml").write_text(f'{head}[models.net]\nassembly = "{name}"\n{more}\n')
    return folder / "certes.toml"


def index(folder: Path, **tables: Any) -> None:
    """Write other tables into the index."""
    path = folder / ".certes" / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **tables}))


@pytest.mark.parametrize(
    ("changes", "mode", "code", "state"),
    [
        ({}, "interface", 0, "passed"),
        ({"up": 9.0 * np.eye(2), "down": 9.0 * np.eye(2)}, "interface", 1, "failed"),
        ({"up": 3.0 * np.eye(2, k=1), "down": 3.0 * np.eye(2, k=1)}, "interface", 3, "undecided"),
    ],
)
def test_each_exit_code(
    capsys: Capture, tmp_path: Path, changes: dict[str, Any], mode: str, code: int, state: str
) -> None:
    policy = repository(tmp_path)
    weights(tmp_path, **changes)
    done = check(capsys, policy)
    assert done.code == done.json["exit"] == code, done.out
    assert only(done)["state"] == state
    again = check(capsys, policy)
    assert again.code == code
    assert only(again)["cached"] is (state != "undecided"), "a refutation is kept, too"


def missing(folder: Path) -> str:
    (folder / "w.safetensors").unlink()
    return "w.safetensors"


def renamed(folder: Path) -> str:
    arrays = {name: entry.floats() for name, entry in read_weights(folder / "w.safetensors").tensors.items()}
    write_weights(folder / "w.safetensors", {("upper" if k == "up" else k): v for k, v in arrays.items()})
    return "couplings.0"


def misshapen(folder: Path) -> str:
    weights(folder, up=np.eye(3))
    return "couplings.0"


def not_yaml(folder: Path) -> str:
    (folder / "net.yaml").write_text("modules: [")
    return "assembly"


def part_outside(folder: Path) -> str:
    describe(folder / "net.yaml", modules={**MODULES, "c": {"assembly": "../other.yaml"}})
    return "modules.c"


@pytest.mark.parametrize("damage", [missing, renamed, misshapen, not_yaml, part_outside])
def test_what_cannot_be_read_is_bad_input_whatever_is_kept(capsys: Capture, tmp_path: Path, damage: Any) -> None:
    policy = repository(tmp_path)
    assert check(capsys, policy, "--accept").code == 0
    named = damage(tmp_path)
    done = check(capsys, policy)
    assert (done.code, only(done)["state"]) == (2, "error")
    assert named in only(done)["detail"]


def test_unchanged_ones_are_verified_and_not_composed(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = repository(tmp_path)
    first = only(check(capsys, policy))
    assert not first["cached"]
    with monkeypatch.context() as patch:
        patch.setattr("certes.composition.description.compose", None)
        again = only(check(capsys, policy))
        assert (again["cached"], again["certificate"]) == (True, first["certificate"])
    weights(tmp_path, down=0.2 * np.eye(2))
    assert not only(check(capsys, policy))["cached"], "a coupling"
    weights(tmp_path)
    describe(tmp_path / "net.yaml", modules={**MODULES, "b": {**MODULES["b"], "activation": "relu"}})
    assert not only(check(capsys, policy))["cached"], "an activation"
    describe(tmp_path / "net.yaml", step=0.1)
    stepped = only(check(capsys, policy))
    assert not stepped["cached"]
    assert stepped["claims"]["rate"] is None, "a map has a factor"


@pytest.mark.cases(2)
@pytest.mark.parametrize("other", ["fewer couplings", "another step", "an activation", "other weights", "flattened"])
def test_the_certificate_of_another_assembly_counts_for_nothing(capsys: Capture, tmp_path: Path, other: str) -> None:
    """The index names, for an unstable assembly, the true certificate of one that is like it and contracts."""
    policy = repository(tmp_path)
    strong = {"up": 9.0 * np.eye(2), "down": 9.0 * np.eye(2)}
    weights(tmp_path, **strong)
    assert check(capsys, policy).code == 1
    folder = tmp_path / ".certes"
    if other == "flattened":  # about rounded numbers: believed where it says no, and never where it says yes
        weights(tmp_path)
        found = certify(flattened(read(tmp_path / "net.yaml").assembly), "lure").certificate
        assert found is not None
        assert found.verdict == "contracting"
        found.write(folder)
        digest = found.digest
        assert not Composed(read(tmp_path / "net.yaml").assembly, compose, "interface").holds(found)
    else:
        changes: dict[str, Any] = {"fewer couplings": {"couplings": COUPLINGS[:1]}, "another step": {"step": 1e-3}}.get(
            other, {}
        )
        weights(tmp_path, **({} if other in ("other weights", "an activation", "another step") else strong))
        describe(tmp_path / "like.yaml", **changes)
        bundle = certified(read(tmp_path / "like.yaml").compose(mode="interface"))
        bundle.write(folder)
        digest = bundle.root
    weights(tmp_path, **strong)
    if other in ("another step", "an activation"):  # here the weights are the same, and only the description differs
        weights(tmp_path)
        if other == "an activation":
            slope = {"form": "rate", "tensors": {"W": "a"}, "slope": [0.0, 9.0]}
            describe(tmp_path / "net.yaml", modules={**MODULES, "a": slope})
        else:
            describe(tmp_path / "net.yaml", step=50.0)
    before = check(capsys, policy)
    assert before.code != 0
    answers = json.loads((folder / "index.json").read_text())["answers"]
    asked = Policy.read(policy).models["net"]
    described = read(tmp_path / "net.yaml")
    question = Composed(described.assembly, described.compose, described.mode).question(asked)
    index(tmp_path, answers={**dict.fromkeys(answers, digest), question: digest})
    done = check(capsys, policy)
    assert done.code == before.code
    assert not only(done)["cached"]


def _tampered(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        data = bytearray(path.read_bytes())
        data[-2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("pattern", ["*.assembly.json", "*.certificate.json", "*.proof.safetensors", "index.json", "*"])
def test_a_damaged_store_is_made_anew(capsys: Capture, tmp_path: Path, pattern: str) -> None:
    policy = repository(tmp_path)
    digest = only(check(capsys, policy))["certificate"]
    if pattern in ("index.json", "*"):
        for path in (tmp_path / ".certes").glob(pattern):
            path.unlink()
    else:
        _tampered(tmp_path / ".certes", pattern)
    done = check(capsys, policy)
    assert (done.code, only(done)["cached"], only(done)["certificate"]) == (0, False, digest)


@pytest.mark.parametrize(
    ("rule", "held"),
    [
        ("rate_at_least = 0.3", True),
        ("rate_at_least = 0.9", False),
        ("factor_at_most = 0.9", False),  # no factor is claimed of a flow
        ("step_used = 0.001\nstep_margin_at_least = 1.5", True),
        ("step_used = 0.001\nstep_margin_at_least = 1e6", False),
        ("step_margin_at_least = 1.5", False),  # nobody says which step is run
    ],
)
def test_rules(capsys: Capture, tmp_path: Path, rule: str, held: bool) -> None:
    done = check(capsys, repository(tmp_path, rule))
    assert done.code == (0 if held else 1), done.out
    name = rule.split("\n")[-1].split(" ")[0]
    (looked_at,) = [entry for entry in only(done)["rules"] if entry["name"] == name]
    assert looked_at["held"] is held


def test_a_factor_of_the_whole(capsys: Capture, tmp_path: Path) -> None:
    policy = repository(tmp_path, "factor_at_most = 0.9999")
    describe(tmp_path / "net.yaml", step=0.1)
    assert check(capsys, policy).code == 0
    policy.write_text(policy.read_text().replace("0.9999", "0.5"))
    assert check(capsys, policy).code == 1


def test_a_step_margin_is_proven_by_the_interfaces(capsys: Capture, tmp_path: Path) -> None:
    """The proof of the whole has the better rate, and no largest step."""
    policy = repository(tmp_path)
    weights(tmp_path, up=0.9 * np.eye(2), down=-0.9 * np.eye(2))
    describe(tmp_path / "net.yaml", mode="all")
    best = only(check(capsys, policy))
    assert best["claims"]["largest_step"] is None
    policy.write_text(policy.read_text() + "step_used = 0.001\nstep_margin_at_least = 1.1\n")
    done = check(capsys, policy)
    assert done.code == 0, done.out
    assert not only(done)["cached"], "another question"


def test_a_lost_rate_is_noticed(capsys: Capture, tmp_path: Path) -> None:
    policy = repository(tmp_path, "allowed_regression = 0.01")
    assert check(capsys, policy, "--accept").code == 0
    b = ARRAYS["b"]
    for scale, code in ((1.0 + 1e-9, 0), (1.3, 1), (0.5, 0)):
        weights(tmp_path, b=b * scale)
        assert check(capsys, policy).code == code, scale
    policy.write_text(policy.read_text().replace("0.01", "0.0"))
    weights(tmp_path, b=b * (1 + 1e-6))
    done = check(capsys, policy)
    assert [rule["name"] for rule in only(done)["rules"] if not rule["held"]] == ["allowed_regression"]


def test_signatures(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    private, _ = keys(tmp_path / "keys", "release")
    other, _ = keys(tmp_path / "keys", "other")
    policy = repository(tmp_path, "allowed_regression = 0.1", '[trust]\nkeys = ["keys/release.pub.pem"]\n')
    assert check(capsys, policy).code == 1, "unsigned"
    assert check(capsys, policy, "--sign", other).code == 1
    shutil.rmtree(tmp_path / ".certes")
    assert check(capsys, policy, "--sign", private, "--accept").code == 0
    done = check(capsys, policy)
    assert (done.code, only(done)["cached"]) == (0, True)
    (path,) = (tmp_path / ".certes").glob("*.assembly.json")
    kept = path.read_bytes()
    envelope = json.loads(kept)
    signature = envelope["signatures"][0]["sig"]
    envelope["signatures"][0]["sig"] = ("A" if signature[0] != "A" else "B") + signature[1:]
    path.write_text(json.dumps(envelope, separators=(",", ":"), sort_keys=True))
    done = check(capsys, policy)
    assert done.code == 1, "a signature that does not fit"
    assert {rule["name"] for rule in only(done)["rules"] if not rule["held"]} == {"signature", "allowed_regression"}
    path.write_bytes(kept)
    (keyid,) = AssemblyBundle.read(path).keyids
    policy.write_text(policy.read_text().replace("[trust]\n", f'[trust]\nrevoked = ["{keyid}"]\n'))
    done = check(capsys, policy)
    assert done.code == 1
    assert "revoked" in only(done)["rules"][1]["found"]


def test_what_lies_beside_the_description_is_taken_if_it_holds(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training leaves its certificate beside the description: its metrics are none that a search finds."""
    policy = repository(tmp_path, name="run")
    run = tmp_path / "run"
    run.mkdir()
    shutil.move(tmp_path / "w.safetensors", run)
    (run / DESCRIPTION).write_text(json.dumps(yaml.safe_load((tmp_path / "net.yaml").read_text())))
    bundle = certified(read(run / DESCRIPTION).compose())
    bundle.write(run)
    with monkeypatch.context() as patch:
        patch.setattr("certes.composition.description.compose", None)
        done = check(capsys, policy)
    assert (done.code, only(done)["certificate"], only(done)["cached"]) == (0, bundle.root, False)
    # what it does not claim is looked for
    weights(run, up=0.9 * np.eye(2), down=-0.9 * np.eye(2))
    shutil.rmtree(tmp_path / ".certes")
    done = check(capsys, policy)
    assert (done.code, only(done)["certificate"] != bundle.root) == (0, True), "of other weights"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("assembly = 'net.yaml'\nfile = 'w.safetensors'", "models.net.file"),
        ("assembly = 'net.yaml'\nform = 'rate'", "models.net.form"),
        ("assembly = 'net.yaml'\nsystem = {form = 'rate'}", "models.net.system"),
        ("assembly = 'net.yaml'\nweight_radius_at_least = 0.1", "models.net.weight_radius_at_least"),
        ("assembly = 'net.yaml'\ncondition = 'lure'", "models.net.condition"),
        ("assembly = ''", "models.net.assembly"),
        ("assembly = 3", "models.net.assembly"),
        ("form = 'rate'", "models.net.file"),
    ],
)
def test_a_policy_that_is_none(capsys: Capture, tmp_path: Path, text: str, field: str) -> None:
    (tmp_path / "certes.toml").write_text(f"[models.net]\n{text}\n")
    done = check(capsys, tmp_path / "certes.toml")
    assert done.code == 2
    assert field in done.json["field"]


def test_no_radius_is_promised_of_what_is_composed(capsys: Capture, tmp_path: Path) -> None:
    """Refused before anything is searched, with what to do instead; and that does what it says."""
    radius = "weight_radius_at_least = 0.001\n"
    policy = tmp_path / "certes.toml"
    policy.write_text(f'[models.net]\nassembly = "net.yaml"\n{radius}')
    done = check(capsys, policy)
    assert (done.code, "a model of its own" in done.json["expected"]) == (2, True)
    for sides in (("",), ("", "_reverse")):
        torch_weights(tmp_path, sides)
        policy.write_text(TORCH + radius)
        done = check(capsys, policy)
        assert (done.code, only(done)["state"], only(done)["certificate"]) == (2, "error", None)
        assert 'form = "rate", tensors' in only(done)["detail"]
    assert not (tmp_path / ".certes").exists()
    layer = 'form = "rate"\nactivation = "tanh"\ntensors = { W = "rnn.weight_hh_l0" }\nstep = 1.0\n'
    layer += 'condition = "lure"\nrate = 0.9\n'
    policy.write_text(f'[models.layer]\nfile = "rnn.safetensors"\n{layer}{radius}')
    done = check(capsys, policy)
    assert (done.code, only(done)["rules"][1]["name"]) == (0, "weight_radius_at_least"), only(done)


def test_links_do_not_lead_out(capsys: Capture, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    repository(tmp_path)
    policy = repository(home, name="run")
    (home / "run" / DESCRIPTION).symlink_to(tmp_path / "net.yaml")
    done = check(capsys, policy)
    assert done.code == 2
    assert "inside the policy's folder" in only(done)["detail"]


def torch_weights(folder: Path, sides: tuple[str, ...] = ("",), scale: float = 0.2) -> None:
    """What torch.nn.RNN(1, 3, num_layers=2) stores."""
    rng, size = np.random.default_rng(0), 3
    arrays = {}
    for k in range(2):
        for side in sides:
            arrays[f"rnn.weight_hh_l{k}{side}"] = scale * rng.standard_normal((size, size))
            arrays[f"rnn.weight_ih_l{k}{side}"] = rng.standard_normal((size, size * len(sides) if k else 1))
    write_weights(folder / "rnn.safetensors", arrays)


TORCH = '[models.rnn]\nfile = "rnn.safetensors"\nform = "torch-rnn"\nactivation = "tanh"\n'


def test_stacked_layers_are_composed(capsys: Capture, tmp_path: Path) -> None:
    policy = tmp_path / "certes.toml"
    policy.write_text(TORCH + "factor_at_most = 0.95\nallowed_regression = 0.1\n")
    torch_weights(tmp_path)
    first = check(capsys, policy, "--accept")
    assert first.code == 0, first.out
    done = check(capsys, policy)
    assert (only(done)["cached"], only(done)["claims"]) == (True, only(first)["claims"])
    expected = inside(
        capsys, "certify", tmp_path / "rnn.safetensors", "--form", "torch-rnn", "--activation", "tanh", "--json",
        "--out", tmp_path / "out",
    )  # fmt: skip
    (network,) = expected.json["networks"].values()
    assert only(first)["claims"]["factor"] == network["factor"]
    torch_weights(tmp_path, scale=9.0)
    assert check(capsys, policy).code in (1, 3)
    policy.write_text(TORCH + 'condition = "lure"\n')
    assert check(capsys, policy).code == 2


def test_every_direction_must_keep_the_promise(capsys: Capture, tmp_path: Path) -> None:
    policy = tmp_path / "certes.toml"
    policy.write_text(TORCH + "factor_at_most = 0.95\n")
    torch_weights(tmp_path, ("", "_reverse"))
    done = check(capsys, policy)
    assert done.code == 0, done.out
    parts = {"layer0", "layer0_reverse", "layer1", "layer1_reverse"}
    assert set(only(done)["certificates"]) == parts
    assert {rule["part"] for rule in only(done)["rules"]} == parts
    arrays = {name: entry.floats() for name, entry in read_weights(tmp_path / "rnn.safetensors").tensors.items()}
    arrays["rnn.weight_hh_l1_reverse"] = 9.0 * np.eye(3)
    write_weights(tmp_path / "rnn.safetensors", arrays)
    done = check(capsys, policy)
    assert done.code == 1
    broken = [rule for rule in only(done)["rules"] if not rule["held"]]
    assert [rule["part"] for rule in broken] == ["layer1_reverse"]
    assert only(done)["verdict"] == "not_contracting", "of several, the one that says least"
    assert "layer1_reverse" in inside(capsys, "check", "--policy", policy, "--format", "github").out


def test_a_first_policy_names_assemblies_and_leaves_out_their_parts(capsys: Capture, tmp_path: Path) -> None:
    repository(tmp_path)
    (tmp_path / "certes.toml").unlink()
    torch_weights(tmp_path)
    describe(tmp_path / "outer.json", modules={"inner": {"assembly": "net.yaml"}}, couplings=[])
    describe(tmp_path / "broken.yml", file="none.safetensors")
    (tmp_path / "compose.yaml").write_text("services: {x: {image: y}}\n")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "modules.json").write_text('{"modules": {"a": {"version": "1"}}}')
    text, names, left = first_policy(tmp_path)
    assert names == ["outer", "rnn"]
    (line,) = left
    assert line.startswith("broken.yml: ")
    assert "none.safetensors" in line
    policy = Policy.parse(text.encode())
    assert policy.models["outer"].assembly == "outer.json"
    (tmp_path / "certes.toml").write_text(text)
    assert check(capsys, tmp_path / "certes.toml").code == 0


def test_a_network_is_no_assembly_and_the_reverse(tmp_path: Path) -> None:
    """Whatever an index says."""
    from certes_client.policy.subjects import Network

    system = RateNetwork(ARRAYS["a"], activation="tanh")
    bundle = certified(compose({"a": system}, mode="interface"))
    own = certify(system, "absolute").certificate
    assert own is not None
    assert Network(system).holds(own)
    assert not Network(system).holds(bundle)
    (alone,) = [Composed(compose({"a": system}).assembly, compose, "auto")]
    assert alone.holds(bundle)
    assert not alone.holds(own)
