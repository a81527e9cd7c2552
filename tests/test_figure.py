"""Figures: the field of values and its conics against closed forms and samples; pictures of verified proofs; images."""

from __future__ import annotations

import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
import scipy.sparse
from certes.engines import conic as engine
from certes.errors import InputError, MissingExtraError
from certes.figure import FieldPicture, FrequencyPicture, SpectrumPicture, draw, picture
from certes.figure.drawing import render
from certes.figure.geometry import NEAR, Conic, FieldOfValues
from certes.proofs import AbsoluteProof, Claims, LureProof, ProductProof, SwitchingWitness, SymmetricProof
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

entries = st.floats(-3, 3, allow_subnormal=False).map(lambda x: round(x, 3))
squares = st.integers(1, 5).flatmap(lambda n: arrays(np.float64, (n, n), elements=entries))
angles = st.floats(0.0, math.pi)
SKEW = np.array([[0.0, -1.5], [1.5, 0.0]])


def gaussian(n: int, size: float = 0.5, seed: int = 0) -> Any:
    return size * np.random.default_rng(seed).standard_normal((n, n)) / math.sqrt(n)


def values_of(matrix: Any, count: int = 300, seed: int = 0) -> Any:
    """v* A v for random unit vectors v, and for the real and the eigenvectors among them."""
    rng = np.random.default_rng(seed)
    v = rng.standard_normal((len(matrix), count)) + 1j * rng.standard_normal((len(matrix), count))
    v = np.concatenate([v, v.real, np.linalg.eig(matrix)[1]], axis=1)
    v = v[:, np.linalg.norm(v, axis=0) > 1e-9]
    v = v / np.linalg.norm(v, axis=0)
    return np.einsum("ik,ij,jk->k", v.conj(), matrix, v)


# --- the field of values ---


@given(squares)
def test_outline_is_in_the_field_of_values_and_around_it(matrix: Any) -> None:
    outline = FieldOfValues(matrix).outline(37)
    size = 1.0 + np.abs(matrix).sum()
    turned = np.exp(-1j * outline.normals)[:, None]
    samples = values_of(matrix)
    assert ((turned * samples).real.max(axis=1) <= outline.distances + 1e-9 * size).all(), "nothing sticks out"
    assert np.allclose((turned[:, 0] * outline.points).real, outline.distances, atol=1e-9 * size), "lines touch"
    for normal in (0.1, 1.0, 2.7):  # the points themselves do not stick out of the exact set either
        hermitian = np.exp(-1j * normal) * matrix
        exact = np.linalg.eigvalsh((hermitian + hermitian.conj().T) / 2)[-1]
        assert (np.exp(-1j * normal) * outline.polygon).real.max() <= exact + 1e-9 * size
        assert (np.exp(1j * normal) * outline.polygon).real.max() <= exact + 1e-9 * size, "the mirror image"


@given(arrays(np.float64, (2, 2), elements=entries))
def test_two_by_two_is_an_ellipse(matrix: Any) -> None:
    """Foci at the eigenvalues, minor axis sqrt(tr A*A - abs(l1)^2 - abs(l2)^2): the elliptical range theorem."""
    first, second = np.linalg.eigvals(matrix)
    centre, focal = (first + second) / 2, (first - second) / 2
    minor = max(np.sum(matrix**2) - abs(first) ** 2 - abs(second) ** 2, 0.0) / 4
    outline = FieldOfValues(matrix).outline(19)
    turned = np.exp(-1j * outline.normals)
    expected = (turned * centre).real + np.sqrt(minor + (turned * focal).real ** 2)
    assert np.allclose(outline.distances, expected, atol=2e-6 * (1 + np.abs(matrix).max()))


@pytest.mark.parametrize("name", ["symmetric", "skew", "circulant", "zero"])
def test_normal_matrix_is_the_hull_of_its_eigenvalues(name: str) -> None:
    given_ = gaussian(7, 1.0)
    matrix = {
        "symmetric": given_ + given_.T,
        "skew": given_ - given_.T,
        "circulant": np.array([np.roll([0.3, 1.0, -0.4, 0.0, 0.2], k) for k in range(5)]),
        "zero": np.zeros((3, 3)),
    }[name]
    outline = FieldOfValues(matrix).outline()
    corners = np.linalg.eigvals(matrix)
    expected = (np.exp(-1j * outline.normals)[:, None] * corners).real.max(axis=1)
    assert np.allclose(outline.distances, expected, atol=1e-12 * (1 + np.abs(corners).max()))


@pytest.mark.parametrize("kind", ["gaussian", "zero", "symmetric", "blocks"])
def test_large_matrix_by_lanczos(kind: str) -> None:
    n = 210
    matrix = gaussian(n, 1.0)
    if kind == "zero":
        matrix = np.zeros((n, n))
    elif kind == "symmetric":
        matrix = matrix + matrix.T
    elif kind == "blocks":  # every eigenvalue many times
        matrix = np.kron(np.eye(n // 2), SKEW)
    outline = FieldOfValues(matrix).outline(7)
    for normal, distance in zip(outline.normals, outline.distances, strict=True):
        turned = np.exp(-1j * normal) * matrix
        exact = np.linalg.eigvalsh((turned + turned.conj().T) / 2)[-1]
        assert distance == pytest.approx(exact, rel=1e-5, abs=1e-9)


# --- the conics ---

levels = st.floats(0.01, 0.99)
leaks = st.floats(0.05, 1.9)


def factor_between(leak: float, share: float) -> float:
    return abs(1 - leak) + share * (1 - abs(1 - leak))


@given(levels)
def test_parabola(level: float) -> None:
    z = Conic.of_rate(level).boundary(50.0)
    assert np.allclose((np.abs(z) + z.real) / 2, 1 - level, atol=1e-12)
    assert np.allclose(engine.Rate().of_point(z), level, atol=1e-12)


@given(leaks, levels)
def test_ellipse(leak: float, share: float) -> None:
    e, rho = 1 - leak, factor_between(leak, share)
    z = Conic.of_factor(rho, leak).boundary(math.inf)
    assert np.allclose(rho * np.abs(z) + e * z.real, (rho**2 - e**2) / leak, rtol=1e-12)
    assert np.allclose(engine.Factor(leak).of_point(z), rho, rtol=1e-9)
    assert abs(z[0] - z[-1]) <= 1e-9 * abs(z[0]), "closed"
    other_focus = -2 * e / leak  # the Euler map -1 of 1 + a (z - 1) = e + a z: rho is the sum of the distances over 2
    assert np.allclose(np.abs(z) + np.abs(z - other_focus), 2 * rho / leak, rtol=1e-9)


def test_plain_map_has_a_disk() -> None:
    conic = Conic.of_factor(0.8, 1.0)
    assert conic.name == "disk"
    assert np.allclose(np.abs(conic.boundary(math.inf)), 0.8)


@given(
    st.one_of(
        levels.map(Conic.of_rate), st.builds(lambda a, s: Conic.of_factor(factor_between(a, s), a), leaks, levels)
    ),
    angles,
)
def test_supporting_lines_of_a_conic(conic: Conic, normal: float) -> None:  # fmt: skip
    slant = float(conic.slant(np.array(normal)))
    if slant < 0.2:
        return  # the line is (nearly) at infinity
    reach = (np.exp(-1j * normal) * conic.boundary(1e5, 20001)).real.max()
    assert reach <= conic.parameter / slant * (1 + 1e-9)
    assert reach == pytest.approx(conic.parameter / slant, rel=1e-2)


# --- pictures of verified proofs ---

G = gaussian(5)
POSITIVE = np.array([[2.0, 0.5], [0.5, 1.0]])
UNEVEN = (0, [0.5, 1, 1.5, 1, 0.2])
FACTORED = -np.diag([1.0, 3.0]) @ POSITIVE @ np.diag([2.0, 1.0])
CASES: dict[str, tuple[Any, str]] = {
    "rate": (certes.RateNetwork(G, activation="tanh", tau=2.0), "lure"),
    "euler": (certes.RateNetwork(G, activation="tanh", step=0.5), "lure"),
    "plain": (certes.RateNetwork(G, activation="tanh", step=1.0), "lure"),
    "long step": (certes.RateNetwork(G, activation="tanh", step=1.2), "lure"),
    "hopfield": (certes.HopfieldNetwork(G, slope=UNEVEN), "lure"),
    "hopfield map": (certes.HopfieldNetwork(G, activation="sigmoid", step=0.5, tau=2.0), "lure"),
    "gaps": (certes.RateNetwork(G, slope=UNEVEN, step=0.5), "lure"),
    "absolute": (certes.RateNetwork(0.4 * G, activation="tanh"), "absolute"),
    "absolute hopfield": (certes.HopfieldNetwork(0.4 * G, slope=UNEVEN), "absolute"),
    "symmetric": (certes.RateNetwork((G + G.T) / 2, activation="tanh"), "symmetric"),
    "symmetric gaps": (certes.RateNetwork((G + G.T) / 2, slope=(0, [0.5, 1, 1, 1, 0.2])), "symmetric"),
    "symmetric hopfield": (certes.HopfieldNetwork((G + G.T) / 2, slope=(0, [0.5, 1, 1, 1, 0.2])), "symmetric"),
    "negative": (certes.RateNetwork(-POSITIVE, activation="tanh"), "symmetric"),
    "product": (certes.RateNetwork(FACTORED, slope=(0, [1, 0.3])), "product"),
    "singular": (certes.RateNetwork(G, slope=(-1, 1)), "singular"),
    "singular hopfield": (certes.HopfieldNetwork(G, slope=(-0.5, UNEVEN[1]), tau=[1, 2, 3, 4, 5]), "singular"),
    "mirrored slopes": (certes.RateNetwork(G, slope=(-1, 1), step=0.5), "lure"),
}


def proven(name: str) -> tuple[Any, Any, Claims]:
    system, condition = CASES[name]
    result = certes.certify(system, condition)
    assert result.certificate is not None, result.detail
    return system, result.certificate.array_proof, result.certificate.claims


@pytest.mark.parametrize("name", CASES)
def test_field_of_values_of_a_verified_proof_is_inside(name: str) -> None:
    system, proof, claims = proven(name)
    shown = picture(system, proof, claims)
    assert isinstance(shown, FieldPicture)
    limit = shown.conic.parameter * (1 + 1e-9) + 1e-9
    assert (shown.conic.use(shown.outline.polygon) <= limit).all()
    assert (shown.conic.use(shown.eigenvalues) <= limit).all()
    bound = system.slope.bound
    assert np.allclose(
        np.sort_complex(shown.eigenvalues), np.sort_complex(np.linalg.eigvals(bound * system.W)), atol=1e-7
    )
    reach = (np.exp(-1j * shown.outline.normals)[:, None] * shown.eigenvalues).real.max(axis=1)
    assert (reach <= shown.outline.distances + 1e-9).all(), "the field of values contains the eigenvalues"
    if "singular" in name or "mirrored" in name:
        assert shown.norm is not None
        assert np.abs(shown.outline.points).max() <= shown.norm * (1 + 1e-9) <= limit
        assert not shown.contacts, "the disk bounds the norm"
    elif "lure" in CASES[name][1]:
        assert shown.contacts
        assert shown.conic.use(shown.outline.points).max() >= 0.98 * shown.conic.parameter, "the best level is close"
    use = shown.conic.use(shown.outline.points).max()
    for contact in shown.contacts:
        assert (NEAR - 1e-3) * use <= shown.conic.use(np.array(contact.point)) <= use * (1 + 1e-3)
    assert np.isfinite(shown.outline.polygon).all()


def test_level_is_the_certified_one() -> None:
    tau, step = 2.0, 0.5
    network = certes.RateNetwork(G, activation="tanh", tau=tau)
    certificate = certes.certify(network, "lure", 0.1).certificate
    assert certificate is not None
    shown = picture(network, certificate.array_proof, certificate.claims)
    assert isinstance(shown, FieldPicture)
    assert shown.conic == Conic(2 * (1 - 0.1 * tau), 1.0)
    assert "rate 0.1" in shown.caption
    certificate = certes.certify(network.with_step(step), "lure", 0.97).certificate
    assert certificate is not None
    shown = picture(network.with_step(step), certificate.array_proof, certificate.claims)
    assert isinstance(shown, FieldPicture)
    e = 1 - step / tau
    assert shown.conic.eccentricity == e / 0.97
    assert shown.conic.parameter == pytest.approx((0.97**2 - e**2) / (step / tau * 0.97))


def test_skew_touches_at_its_eigenvalues() -> None:
    network = certes.RateNetwork(SKEW, activation="tanh")
    proof = LureProof(np.eye(2), np.ones(2), False, 0.0, np.inf, 0.0, 0.0)
    shown = picture(network, proof, Claims(rate=0.25))
    assert isinstance(shown, FieldPicture)
    (contact,) = shown.contacts
    assert contact.point == pytest.approx(1.5j, abs=1e-6)
    assert contact.normal == pytest.approx(math.pi / 4, abs=1e-4)
    assert "the 2 points closest to the parabola, 100 % of the way" in shown.caption
    assert "93.75 % of the way" in picture(network, proof, Claims(rate=0.2)).caption
    with pytest.raises(InputError, match="leaves the conic"):
        picture(network, proof, Claims(rate=0.26))


def test_closest_everywhere_is_nowhere() -> None:
    """The field of values of a Jordan block is a disk."""
    jordan = FieldOfValues(np.array([[0.0, 1.0], [0.0, 0.0]]))
    assert len(jordan.contacts(Conic(0.5, 0.0), jordan.outline())) <= 1


def test_two_corners_near_the_real_axis() -> None:
    """1 +- 0.02 i count as one contact, 1 +- 0.3 i as two."""
    near, apart = (FieldOfValues(np.array([[1.0, -y], [y, 1.0]])) for y in (0.02, 0.3))
    (contact,) = near.contacts(Conic(1 + math.hypot(1, 0.02), 1.0), near.outline())
    assert (contact.point, contact.normal) == (1.0, 0.0)
    (contact,) = apart.contacts(Conic(1 + math.hypot(1, 0.3), 1.0), apart.outline())
    assert contact.point == pytest.approx(1 + 0.3j)


@pytest.mark.parametrize("seed", range(12))
def test_absolute_scaling_stays_inside_for_maps(seed: int) -> None:
    step = (0.2, 0.7, 1.0, 1.3)[seed % 4]
    network = certes.RateNetwork(gaussian(6, 0.4, seed), slope=(0, 0.7), step=step)
    certificate = certes.certify(network, "absolute").certificate
    assert certificate is not None
    assert isinstance(picture(network, certificate.array_proof, certificate.claims), FieldPicture)


def test_exponents_beyond_floats() -> None:
    chain = 1e-100 * np.diag([1.0, 1.0, 1.0], -1) + 1e-30 * np.eye(4)
    network = certes.RateNetwork(chain, activation="tanh")
    exponents = np.array([0, 400, 800, 1200]) * 3
    proof = AbsoluteProof(np.ones(4), -exponents, np.ones(4), exponents * 0)
    with pytest.raises(InputError, match=r"leaves the conic|range of floats"):
        picture(network, proof, Claims(rate=0.9))
    proof = AbsoluteProof(np.ones(4), exponents, np.ones(4), exponents * 0)
    assert isinstance(picture(network, proof, Claims(rate=0.9)), FieldPicture)


# --- the other pictures ---


@pytest.mark.parametrize(
    ("form", "step"), [(certes.RateNetwork, None), (certes.RateNetwork, 0.5), (certes.HopfieldNetwork, None)]
)
def test_frequency_picture(form: Any, step: float | None) -> None:
    network = form(G, activation="tanh", tau=[1, 2, 3, 4, 5], step=step)
    certificate = certes.certify(network, "lure").certificate
    assert certificate is not None
    proof: Any = certificate.array_proof
    shown = picture(network, proof, certificate.claims)
    assert isinstance(shown, FrequencyPicture)
    assert shown.values.max() < 1.0
    assert shown.values.max() > 0.98, "the best level comes close to the border"
    assert (np.diff(shown.frequencies) > 0).all()
    q = proof.multipliers
    for k in range(0, len(q) * 40, 17):  # plain formulas: y = W x, T x' = -x + w
        w = shown.frequencies[k]
        rate, factor = certificate.claims.rate or 0.0, certificate.claims.factor or 0.0
        s = 1j * w - rate if step is None else (factor * np.exp(1j * w) - 1) / step
        weights = network.W if form is certes.RateNetwork else network.W.T  # the proof is about the transposed system
        transfer = weights @ np.diag(1 / (1 + s * network.tau))
        scaled = np.sqrt(q)[:, None] * transfer / np.sqrt(q)[None, :]
        assert shown.values[k] == pytest.approx(np.linalg.eigvalsh((scaled + scaled.conj().T) / 2)[-1], abs=1e-8)


def test_shifted_slopes_and_lure_form_have_the_frequency_picture() -> None:
    for network in (
        certes.RateNetwork(0.5 * G, slope=(0.1, 1)),
        certes.LureSystem(-np.eye(5), G, np.eye(5), slope=(0, 1)),
    ):
        certificate = certes.certify(network, "lure").certificate
        assert certificate is not None
        shown = picture(network, certificate.array_proof, certificate.claims)
        assert isinstance(shown, FrequencyPicture)
        assert 0.9 < shown.values.max() < 1.0


@pytest.mark.parametrize(("activation", "step"), [("tanh", None), ("tanh", 1.0), ("leaky_relu:0.25", None)])
def test_spectrum_of_a_witness(activation: str, step: float | None) -> None:
    network = certes.RateNetwork(gaussian(6, 3.0), activation=activation, step=step)
    certificate = certes.certify(network).certificate
    assert certificate is not None
    witness: Any = certificate.array_proof
    shown = picture(network, witness, certificate.claims)
    assert isinstance(shown, SpectrumPicture)
    matrix = np.diag(witness.slopes) @ network.W
    expected = np.linalg.eigvals(matrix - np.eye(6) if step is None else matrix)
    assert np.allclose(np.sort_complex(shown.eigenvalues), np.sort_complex(expected))
    size = shown.eigenvalues.real if step is None else np.abs(shown.eigenvalues)
    assert size.max() > witness.growth >= (0 if step is None else 1)


def test_spectrum_of_a_switching_witness() -> None:
    network = certes.RateNetwork(gaussian(3, 3.0), activation="relu", step=0.5)
    slopes, times, one = np.eye(3), np.array([2.0, 3.0, 1.0]), np.eye(3)
    witness = SwitchingWitness(slopes, slopes, times, 0.0, one, one[0], 1.0, 1.0, one[0], one[1], 1.0)
    shown = picture(network, witness, Claims())
    assert isinstance(shown, SpectrumPicture)
    first, second, third = (0.5 * one + 0.5 * np.diag(row) @ network.W for row in slopes)
    expected = third @ second @ second @ second @ first @ first
    backwards = first @ first @ second @ second @ second @ third
    assert not np.isclose(np.trace(expected), np.trace(backwards)), "the order matters"
    assert np.allclose(np.sort_complex(shown.eigenvalues), np.sort_complex(np.linalg.eigvals(expected)))
    assert not shown.continuous


NO_PICTURES: dict[str, tuple[Any, Any]] = {
    "sparse": (certes.RateNetwork(scipy.sparse.eye(3), activation="tanh"), SymmetricProof(False)),
    "time constants": (certes.RateNetwork(SKEW, activation="tanh", tau=[1, 2]), SymmetricProof(False)),
    "shifted": (certes.RateNetwork(SKEW, slope=(0.1, 1)), SymmetricProof(False)),
    "both signs": (certes.RateNetwork(SKEW, slope=(-1, 1)), SymmetricProof(False)),
    "residual": (
        certes.RateNetwork(SKEW, activation="tanh"),
        ProductProof(np.ones(2), np.eye(2), np.ones(2), 1.0, 0.5, 2.0),
    ),
}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_no_picture(name: str) -> None:
    with pytest.raises(InputError) as refused:
        picture(*NO_PICTURES[name], Claims(rate=0.9))
    assert refused.value.slug == "no-picture"


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certes.figure.pictures.LARGEST", 1)
    with pytest.raises(InputError) as refused:
        picture(certes.RateNetwork(SKEW, activation="tanh"), SymmetricProof(False), Claims(rate=0.9))
    assert refused.value.slug == "too-large"


@pytest.mark.parametrize(("rate", "text"), [(0.12345678, "0.1234"), (0.99999, "0.9999"), (0.5, "0.5"), (1e-7, "1e-07")])
def test_captions_claim_no_more_than_the_certificate(rate: float, text: str) -> None:
    network = certes.RateNetwork(np.zeros((2, 2)), activation="tanh")
    shown = picture(network, SymmetricProof(False), Claims(rate=rate))
    assert f"rate {text}," in shown.caption
    shown = picture(
        network.with_step(1.0), LureProof(np.eye(2), np.ones(2), False, 0, np.inf, 0, 0), Claims(factor=rate)
    )
    assert float(shown.caption.split("certified factor ")[1].split(",")[0]) >= rate


# --- images ---


@pytest.fixture(scope="module")
def pictures() -> dict[str, Any]:
    skew = certes.RateNetwork(SKEW, activation="tanh")
    proof = LureProof(np.eye(2), np.ones(2), False, 0.0, np.inf, 0.0, 0.0)
    unequal = certes.RateNetwork(0.2 * SKEW, activation="tanh", tau=[1, 2])
    unstable = certes.RateNetwork(3 * SKEW + 3 * np.eye(2), slope=(0, 1))
    witness = certes.certify(unstable).certificate
    assert witness is not None
    singular = certes.certify(certes.RateNetwork(0.5 * SKEW, slope=(-1, 1)), "singular").certificate
    assert singular is not None
    return {
        "field": picture(skew, proof, Claims(rate=0.25)),
        "norm": picture(certes.RateNetwork(0.5 * SKEW, slope=(-1, 1)), singular.array_proof, singular.claims),
        "point": picture(certes.RateNetwork([[0.0]], activation="tanh"), SymmetricProof(False), Claims(rate=0.5)),
        "folded": picture(certes.RateNetwork([[-1.0]], activation="tanh"), SymmetricProof(True), Claims(rate=1.0)),
        "frequency": picture(unequal, proof, Claims(rate=0.1)),
        "spectrum": picture(unstable, witness.array_proof, Claims()),
    }


KINDS = ("field", "norm", "point", "folded", "frequency", "spectrum")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_images(pictures: dict[str, Any], name: str, theme: Any) -> None:
    svg = render(pictures[name], "svg", theme)
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(3.4 * 72)
    assert pictures[name].caption in "".join(root.itertext())
    assert len(svg) < 150_000
    assert not root.findall(".//{http://www.w3.org/2000/svg}text"), "text is drawn as paths"
    assert b"dc:date" not in svg
    assert render(pictures[name], "svg", theme) == svg, "the same bytes again"


def test_themes_differ(pictures: dict[str, Any]) -> None:
    assert render(pictures["field"], "svg", "light") != render(pictures["field"], "svg", "dark")
    with pytest.raises(InputError, match="light or dark"):
        render(pictures["field"], "svg", "sepia")  # type: ignore[arg-type]


def test_a_users_style_changes_nothing(pictures: dict[str, Any]) -> None:
    import matplotlib

    before = render(pictures["field"], "svg")
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 7, "axes.grid": True}):
        assert render(pictures["field"], "svg") == before
        assert matplotlib.rcParams["font.size"] == 20


def test_png_and_names(pictures: dict[str, Any], tmp_path: Path) -> None:
    from PIL import Image

    draw(pictures["field"], tmp_path / "a.PNG", "dark")
    with Image.open(tmp_path / "a.PNG") as image:
        assert image.size[0] == 1020, "3.4 inches at 300 dots"
        assert image.info["Description"] == pictures["field"].caption
        assert image.convert("RGB").getpixel((1, 1)) == (0x0D, 0x11, 0x17)
    with pytest.raises(InputError, match=r"\.svg or \.png"):
        draw(pictures["field"], tmp_path / "a.pdf")
    with pytest.raises(InputError) as refused:
        draw(pictures["field"], tmp_path / "nowhere" / "a.svg")
    assert refused.value.slug == "unwritable"


def test_importing_figures_loads_no_matplotlib() -> None:
    code = "import certes.figure, certes_client.figuring, sys; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_without_matplotlib(pictures: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError) as refused:
        render(pictures["field"], "svg")
    assert refused.value.extra == "figures"
