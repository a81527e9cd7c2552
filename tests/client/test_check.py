"""certes check and certes init: what a policy demands, in every format, and every way in which it can be broken."""

from __future__ import annotations

import json
import shutil
import tomllib
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.certificate.document import Certificate
from certes.errors import InputError
from certes.proofs import Claims
from certes.weights import read_weights, write_weights
from certes_client.policy.checking import Outcome, regression
from certes_client.policy.document import Policy
from certes_client.policy.inspecting import first_policy
from certes_client.policy.reports import FORMATS
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.client.running import ROTATION, STABLE, UNSTABLE, Done, inside, network, process

Capture = pytest.CaptureFixture[str]

#: No quadratic metric proves it, and nothing refutes it.
UNDECIDED = [[0.0, 4.0], [-0.5, 0.9]]

MODEL = """
[models.{name}]
file = "{name}.safetensors"
form = "rate"
tensors = {{ W = "W" }}
activation = "tanh"
condition = "absolute"
{more}
"""


def repository(folder: Path, more: str = "", head: str = "", W: Any = STABLE) -> Path:
    """A folder with one network and a policy for it."""
    network(folder, W, "net.safetensors")
    (folder / "certes.toml").write_text(head + MODEL.format(name="net", more=more))
    return folder / "certes.toml"


def check(capsys: Capture, policy: Path, *options: object) -> Done:
    return inside(capsys, "check", "--policy", policy, "--json", *options)


def only(done: Done) -> dict[str, Any]:
    (model,) = done.json["models"]
    assert isinstance(model, dict)
    return model


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key."""
    made = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    none = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private.write_bytes(made.private_bytes(pem, pkcs8, none))
    public.write_bytes(made.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.mark.parametrize(
    ("W", "condition", "code", "state"),
    [
        (STABLE, "absolute", 0, "passed"),
        (UNSTABLE, "auto", 1, "failed"),
        (ROTATION, "absolute", 3, "undecided"),
    ],
)
def test_each_exit_code(capsys: Capture, tmp_path: Path, W: Any, condition: str, code: int, state: str) -> None:
    policy = repository(tmp_path, W=W)
    policy.write_text(policy.read_text().replace('"absolute"', f'"{condition}"'))
    done = check(capsys, policy)
    assert done.code == done.json["exit"] == code
    assert only(done)["state"] == state


def test_a_missing_file_is_bad_input_and_the_others_are_looked_at(capsys: Capture, tmp_path: Path) -> None:
    policy = repository(tmp_path)
    policy.write_text(policy.read_text() + MODEL.format(name="gone", more=""))
    done = check(capsys, policy)
    assert done.code == 2
    states = {model["model"]: model["state"] for model in done.json["models"]}
    assert states == {"net": "passed", "gone": "error"}
    assert "gone.safetensors" in done.json["models"][1]["detail"]
    assert check(capsys, policy, "net").code == 0, "one alone"
    assert inside(capsys, "check", "nobody", "--policy", policy).code == 2


def test_a_renamed_tensor_is_bad_input(capsys: Capture, tmp_path: Path) -> None:
    policy = repository(tmp_path)
    assert check(capsys, policy).code == 0
    write_weights(tmp_path / "net.safetensors", {"V": np.asarray(STABLE)})
    done = check(capsys, policy)
    assert done.code == 2
    assert "W" in only(done)["detail"]


def test_unchanged_weights_are_verified_and_not_solved(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = repository(tmp_path)
    first = only(check(capsys, policy))
    assert not first["cached"]
    monkeypatch.setattr("certes_client.policy.subjects.certify", None)
    again = only(check(capsys, policy))
    assert again["cached"]
    assert again["certificate"] == first["certificate"]


def test_changed_weights_or_another_question_are_certified_anew(capsys: Capture, tmp_path: Path) -> None:
    policy = repository(tmp_path)
    first = only(check(capsys, policy))
    network(tmp_path, np.asarray(STABLE) * 0.9)
    changed = only(check(capsys, policy))
    assert not changed["cached"]
    assert changed["certificate"] != first["certificate"]
    network(tmp_path)
    policy.write_text(policy.read_text().replace('"tanh"', '"sigmoid"'))
    assert not only(check(capsys, policy))["cached"]


def test_a_certificate_for_other_weights_counts_for_nothing(capsys: Capture, tmp_path: Path) -> None:
    """The index says that the certificate of a stable network answers the question about an unstable one."""
    policy = repository(tmp_path)
    stable = only(check(capsys, policy))["certificate"]
    network(tmp_path, UNSTABLE)
    policy.write_text(policy.read_text().replace('"absolute"', '"auto"'))
    assert check(capsys, policy).code == 1
    index = tmp_path / ".certes" / "index.json"
    content = json.loads(index.read_text())
    content["answers"] = dict.fromkeys(content["answers"], stable)
    index.write_text(json.dumps(content))
    done = check(capsys, policy)
    assert done.code == 1
    assert not only(done)["cached"]


@pytest.mark.parametrize("damage", ["certificate", "proof", "index", "gone"])
def test_a_damaged_store_is_made_anew(capsys: Capture, tmp_path: Path, damage: str) -> None:
    policy = repository(tmp_path)
    digest = only(check(capsys, policy))["certificate"]
    folder = tmp_path / ".certes"
    if damage == "certificate":
        path = folder / f"{digest}.certificate.json"
        path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    elif damage == "proof":
        (path,) = folder.glob("*.proof.safetensors")
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "index":
        (folder / "index.json").write_text('{"answers": {"x": 3}, "accepted": []}')
    else:
        shutil.rmtree(folder)
    done = check(capsys, policy)
    assert done.code == 0
    assert not only(done)["cached"]
    assert only(done)["certificate"] == digest


def test_an_index_that_is_no_json_is_bad_input(capsys: Capture, tmp_path: Path) -> None:
    policy = repository(tmp_path)
    (tmp_path / ".certes").mkdir()
    (tmp_path / ".certes" / "index.json").write_text("[")
    assert check(capsys, policy).code == 2


@pytest.mark.parametrize(
    ("rule", "held"),
    [
        ("rate_at_least = 0.3", True),
        ("rate_at_least = 0.6", False),
        ("step_used = 0.5\nstep_margin_at_least = 1.5", True),
        ("step_used = 0.5\nstep_margin_at_least = 1000.0", False),
        ("step_margin_at_least = 1.5", False),  # nobody says which step is run
        ("step = 1.0\nfactor_at_most = 0.9", True),
        ("step = 1.0\nfactor_at_most = 0.1", False),
        ("factor_at_most = 0.9", False),  # of a differential equation no factor is claimed
        ("weight_radius_at_least = 1e-300", True),
        ("weight_radius_at_least = 10.0", False),
    ],
)
def test_rules(capsys: Capture, tmp_path: Path, rule: str, held: bool) -> None:
    policy = repository(tmp_path, rule)
    if "radius" in rule:
        policy.write_text(policy.read_text().replace('"absolute"', '"lure"') + "rate = 0.1\n")
    done = check(capsys, policy)
    assert done.code == (0 if held else 1), done.out
    name = rule.split("\n")[-1].split(" ")[0]
    (looked_at,) = [entry for entry in only(done)["rules"] if entry["name"] == name]
    assert looked_at["held"] is held


def test_less_is_asked_for_where_the_weights_need_room() -> None:
    text = MODEL.format(name="net", more="rate_at_least = 0.2\nweight_radius_at_least = 0.01")
    assert Policy.parse(text.encode()).models["net"].asked == 0.2
    assert Policy.parse(MODEL.format(name="net", more="rate_at_least = 0.2").encode()).models["net"].asked == "best"


def test_a_lost_rate_is_noticed(capsys: Capture, tmp_path: Path) -> None:
    policy = repository(tmp_path, "allowed_regression = 0.01")
    assert check(capsys, policy, "--accept").code == 0
    for scale, code in ((1.0 + 1e-9, 0), (1.3, 1), (0.5, 0)):
        network(tmp_path, np.asarray(STABLE) * scale)
        done = check(capsys, policy)
        assert done.code == code, scale
    # a run without --accept moves nothing
    network(tmp_path, np.asarray(STABLE) * 1.3)
    assert check(capsys, policy).code == 1
    assert check(capsys, policy, "--accept").code == 1, "what fails is not accepted"
    assert check(capsys, policy).code == 1


@pytest.mark.parametrize("damage", ["gone", "another"])
def test_what_was_accepted_and_is_gone_is_noticed(capsys: Capture, tmp_path: Path, damage: str) -> None:
    policy = repository(tmp_path, "allowed_regression = 0.01")
    accepted = tmp_path / ".certes" / f"{only(check(capsys, policy, '--accept'))['certificate']}.certificate.json"
    network(tmp_path, np.asarray(STABLE) * 1.3)
    slower = only(check(capsys, policy))["certificate"]
    if damage == "gone":
        accepted.unlink()
    else:  # a slower one under its name would be a lower bar
        shutil.copy(tmp_path / ".certes" / f"{slower}.certificate.json", accepted)
    done = check(capsys, policy)
    assert done.code == 1
    (rule,) = [rule for rule in only(done)["rules"] if not rule["held"]]
    assert (rule["name"], rule["found"]) == ("allowed_regression", "missing or damaged")


@given(
    st.fractions(min_value=Fraction(1, 10**6), max_value=1),
    st.fractions(min_value=Fraction(1, 10**6), max_value=1),
    st.floats(min_value=0, max_value=0.99),
)
def test_regressions_are_compared_exactly(now: Fraction, before: Fraction, allowed: float) -> None:
    a, b = float(now), float(before)
    held = regression(allowed, Claims(rate=a), Claims(rate=b)).held
    assert held == (Fraction(a) >= Fraction(b) * (1 - Fraction(allowed)))
    held = regression(allowed, Claims(factor=1 - a), Claims(factor=1 - b)).held
    assert held == (1 - Fraction(1 - a) >= (1 - Fraction(1 - b)) * (1 - Fraction(allowed)))


def test_another_kind_of_guarantee_is_a_regression() -> None:
    assert not regression(0.5, Claims(rate=0.5), Claims(factor=0.5)).held
    assert not regression(0.5, Claims(factor=0.5), Claims(rate=0.5)).held


def test_signatures(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    private, public = keys(tmp_path / "keys", "release")
    other, _ = keys(tmp_path / "keys", "other")
    policy = repository(tmp_path, head='[trust]\nkeys = ["keys/release.pub.pem"]\n')
    done = check(capsys, policy)
    assert done.code == 1
    assert only(done)["rules"][1] == {
        "name": "signature", "held": False, "wanted": "signed by a trusted key", "found": "unsigned"
    }  # fmt: skip
    assert check(capsys, policy, "--sign", other).code == 1
    shutil.rmtree(tmp_path / ".certes")
    done = check(capsys, policy, "--sign", private)
    assert done.code == 0
    done = check(capsys, policy)  # and from then on without the private key
    assert done.code == 0
    assert only(done)["cached"]
    keyid = Certificate.read(tmp_path / ".certes").keyids[0]
    policy.write_text(policy.read_text().replace("[trust]\n", f'[trust]\nrevoked = ["{keyid}"]\n'))
    done = check(capsys, policy)
    assert done.code == 1
    assert "revoked" in only(done)["rules"][1]["found"]
    public.unlink()
    assert check(capsys, policy).code == 2


def test_what_was_accepted_needs_a_trusted_signature_too(capsys: Capture, tmp_path: Path) -> None:
    """Otherwise whoever can write the folder could lower what later networks are compared with."""
    (tmp_path / "keys").mkdir()
    private, _ = keys(tmp_path / "keys", "release")
    policy = repository(tmp_path, "allowed_regression = 0.1")
    network(tmp_path, np.asarray(STABLE) * 1.3)
    assert check(capsys, policy, "--accept").code == 0  # unsigned, and slower
    policy.write_text('[trust]\nkeys = ["keys/release.pub.pem"]\n' + policy.read_text())
    network(tmp_path)
    done = check(capsys, policy, "--sign", private)
    assert done.code == 1
    assert [rule["name"] for rule in only(done)["rules"] if not rule["held"]] == ["allowed_regression"]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "models"),
        ("models = 3", "models"),
        ("[models]", "models"),
        ("[models.a", "certes.toml"),
        ("[models.a]\nfile = 'x'", "models.a.form"),
        ("[models.a]\nfile = 'x'\nform = 'rate'", "models.a.tensors"),
        ("[models.a]\nfile = 'x'\nform = 'rate'\ntensors = {W='W'}\nactivation = 'tanh'\nrat = 1", "models.a.rat"),
        ("[models.'../a']\nfile = 'x'\nform = 'torch-rnn'\nactivation = 'tanh'", "models"),
        ("[models.a]\nfile = 'x'\nform = 'torch-rnn'\nactivation = 'tanh'\nrate_at_least = -1", "rate_at_least"),
        ("[models.a]\nfile = 'x'\nform = 'torch-rnn'\nactivation = 'tanh'\nrate_at_least = nan", "rate_at_least"),
        ("[trust]\nrevoked = ['x']\n[models.a]\nfile='x'\nform='torch-rnn'\nactivation='tanh'", "trust.revoked"),
        ("a = " + "[" * 5000, "certes.toml"),
    ],
)
def test_a_policy_that_is_none(capsys: Capture, tmp_path: Path, text: str, field: str) -> None:
    (tmp_path / "certes.toml").write_text(text)
    done = inside(capsys, "check", "--policy", tmp_path / "certes.toml", "--json")
    assert done.code == 2
    assert field in done.json["field"]


@pytest.mark.parametrize("path", ["../net.safetensors", "/etc/passwd", "link/net.safetensors"])
def test_paths_stay_inside(capsys: Capture, tmp_path: Path, path: str) -> None:
    outside, home = tmp_path / "outside", tmp_path / "home"
    outside.mkdir()
    home.mkdir()
    network(outside)
    network(tmp_path)
    (home / "link").symlink_to(outside)
    policy = repository(home)
    policy.write_text(policy.read_text().replace('"net.safetensors"', f'"{path}"'))
    done = check(capsys, policy)
    assert done.code == 2
    assert "inside the policy's folder" in only(done)["detail"]
    with pytest.raises(InputError, match="inside"):
        text = policy.read_text().replace(path, "net.safetensors")
        policy.write_text('certificates = "../elsewhere"\n' + text)
        from certes_client.policy.checking import Checker

        Checker(Policy.read(policy), home)


def describe(folder: Path, name: str) -> None:
    """An assembly of the network of that name and a stable one behind it."""
    network(folder, STABLE, "stable.safetensors", L=0.01 * np.eye(2))
    modules = {
        key: {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh", "file": f"{file}.safetensors"}
        for key, file in (("first", name), ("second", "stable"))
    }
    couplings = [{"to": "second", "from": "first", "tensor": "L", "file": "stable.safetensors"}]
    given = {"modules": modules, "couplings": couplings, "mode": "interface"}
    (folder / f"{name}.json").write_text(json.dumps(given))


@pytest.fixture(params=["network", "assembly"])
def outcomes(request: pytest.FixtureRequest, tmp_path: Path) -> list[Outcome]:
    """One model of every state, with names and files that no format may trip over."""
    from certes_client.policy.checking import Checker

    more = {"fine": "rate_at_least = 0.3", "slow": "rate_at_least = 0.9", "turns": "", "gone": ""}
    network(tmp_path, STABLE, "fine.safetensors")
    network(tmp_path, STABLE, "slow.safetensors")
    network(tmp_path, ROTATION, "turns.safetensors")
    model = MODEL
    if request.param == "assembly":
        model = '[models.{name}]\nassembly = "{name}.json"\n{more}\n'
        network(tmp_path, UNDECIDED, "turns.safetensors")
        for name in more:
            describe(tmp_path, name)
    (tmp_path / "certes.toml").write_text("".join(model.format(name=k, more=v) for k, v in more.items()))
    checker = Checker(Policy.read(tmp_path / "certes.toml"), tmp_path)
    return [checker.check(name) for name in more]


def file_of(outcome: Outcome) -> str:
    """What stands in every format for the file of a model."""
    return f"{outcome.model}.{'json' if outcome.file.endswith('.json') else 'safetensors'}"


def test_json(outcomes: list[Outcome]) -> None:
    content = json.loads(FORMATS["json"](outcomes))
    assert content["exit"] == 2
    assert [model["state"] for model in content["models"]] == ["passed", "failed", "undecided", "error"]
    assert content["models"][0]["claims"]["rate"] > 0.3
    assert content["models"][1]["rules"][1]["name"] == "rate_at_least"
    assert [model["file"] for model in content["models"]] == [file_of(outcome) for outcome in outcomes]
    assert [len(model["certificates"]) for model in content["models"]] == [1, 1, 0, 0]


def test_junit(outcomes: list[Outcome]) -> None:
    root = ET.fromstring(FORMATS["junit"](outcomes))
    suites = root.findall("testsuite")
    numbers = [tuple(int(suite.get(key, "")) for key in ("tests", "failures", "errors", "skipped")) for suite in suites]
    assert numbers == [(2, 0, 0, 0), (2, 1, 0, 0), (1, 0, 0, 1), (1, 0, 1, 0)]
    for suite, (tests, failures, errors, skipped) in zip(suites, numbers, strict=True):
        cases = suite.findall("testcase")
        assert len(cases) == tests
        found = [len(suite.findall(f"testcase/{name}")) for name in ("failure", "error", "skipped")]
        assert found == [failures, errors, skipped]


def test_sarif(outcomes: list[Outcome]) -> None:
    content = json.loads(FORMATS["sarif"](outcomes))
    assert content["version"] == "2.1.0"
    (run,) = content["runs"]
    known = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    found = [(entry["ruleId"], entry["level"]) for entry in run["results"]]
    assert found == [
        ("certes/rate_at_least", "error"), ("certes/contracting", "warning"), ("certes/error", "error")
    ]  # fmt: skip
    assert {rule for rule, _ in found} <= known
    places = [entry["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for entry in run["results"]]
    assert places == [file_of(outcome) for outcome in outcomes[1:]]


def test_github(outcomes: list[Outcome]) -> None:
    lines = FORMATS["github"](outcomes).splitlines()
    slow, turns, gone = (file_of(outcome) for outcome in outcomes[1:])
    assert lines[0].startswith(f"::error file={slow},title=certes%3A slow failed::rate_at_least: wanted")
    assert lines[1].startswith(f"::warning file={turns},title=certes%3A turns undecided::undecided")
    assert lines[2].startswith(f"::error file={gone},")
    assert len(lines) == 3


def test_nothing_breaks_out_of_a_format() -> None:
    bad = "a|b`<script>\n::set-output name=x::y\r%\x00\x1b[31m"
    outcome = Outcome("m", bad, "error", detail=bad)
    assert len(FORMATS["github"]([outcome]).splitlines()) == 1
    assert "::set-output" not in FORMATS["github"]([outcome]).split("::", 2)[1]
    (row,) = FORMATS["markdown"]([outcome]).splitlines()[2:]
    assert row.replace("\\|", "").count("|") == 5
    assert "<script" not in row
    ET.fromstring(FORMATS["junit"]([outcome]))
    json.loads(FORMATS["sarif"]([outcome]))


def test_markdown(outcomes: list[Outcome]) -> None:
    lines = FORMATS["markdown"](outcomes).splitlines()
    assert lines[:2] == ["| model | | what | certificate |", "| --- | --- | --- | --- |"]
    assert [line.split("|")[2].strip() for line in lines[2:]] == [
        "**passed**", "**failed**", "**undecided**", "**error**"
    ]  # fmt: skip


def test_the_table_and_files(capsys: Capture, tmp_path: Path) -> None:
    policy = repository(tmp_path)
    done = inside(capsys, "check", "--policy", policy)
    assert done.code == 0
    assert "net" in done.out
    assert "contracting, rate 0." in done.out
    report = tmp_path / "reports" / "certes.xml"
    told = ("--report", f"junit:{report}", "--report", f"markdown:{tmp_path / 'certes.md'}")
    done = inside(capsys, "check", "--policy", policy, "--format", "github", *told)
    assert (done.code, done.out) == (0, ""), "nothing to annotate"
    assert ET.parse(report).getroot().tag == "testsuites"
    assert "**passed**" in (tmp_path / "certes.md").read_text()
    for wrong in ("junit", "junit:", "yaml:x", f"json:{report}/below"):
        assert inside(capsys, "check", "--policy", policy, "--report", wrong).code == 2
    assert inside(capsys, "check", "--policy", policy, "--format", "yaml").code == 2
    assert inside(capsys, "check", "--policy", tmp_path / "none.toml").code == 2


def test_init_and_check_as_a_process(capsys: Capture, tmp_path: Path) -> None:
    network(tmp_path, STABLE, "net-tanh.safetensors")
    (tmp_path / "sub").mkdir()
    network(tmp_path / "sub", STABLE, "net-tanh.safetensors")
    (tmp_path / "node_modules").mkdir()
    network(tmp_path / "node_modules", STABLE)
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    done = process("init", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "net-tanh, net-tanh-2" in done.out
    assert "broken.safetensors" in done.out
    text = (tmp_path / "certes.toml").read_text()
    assert tomllib.loads(text)["models"]["net-tanh-2"]["file"] == "sub/net-tanh.safetensors"
    assert inside(capsys, "init", tmp_path).code == 2, "what is there stays"
    assert inside(capsys, "init", "--force", tmp_path).code == 0
    done = process("check", cwd=tmp_path)
    assert done.code == 0, done.err
    assert inside(capsys, "init", tmp_path / "node_modules" / "none").code == 2
    (tmp_path / "empty").mkdir()
    assert inside(capsys, "init", tmp_path / "empty").code == 2


@given(st.text(min_size=1, max_size=30), st.sampled_from(["tanh", "relu"]))
def test_a_first_policy_can_be_read_whatever_files_and_tensors_are_called(tensor: str, activation: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            write_weights(folder / f"a '{activation}.safetensors", {tensor: np.asarray(STABLE)})
            read_weights(folder / f"a '{activation}.safetensors")
        except (InputError, UnicodeEncodeError, ValueError):
            return
        text, names, _ = first_policy(folder)
        policy = Policy.parse(text.encode())
        assert list(policy.models) == names
        assert policy.models[names[0]].system.tensors == {"W": tensor}
