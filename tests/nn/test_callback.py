"""Certification along the way: what it says is what certify says, and the training never notices."""

from __future__ import annotations

import copy
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
import torch
from certes.errors import InputError
from certes.nn import AdaDiagNet
from certes.nn import callback as callbacks
from certes.nn.callback import CertificateLostError, Certify, Found
from torch import Tensor, nn


class Tagger(nn.Module):
    """A torch.nn.RNN among other things."""

    def __init__(self, scale: float = 0.3, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(3, 4)
        self.core = nn.RNN(4, 5, batch_first=True, **options)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(5 * (2 if self.core.bidirectional else 1), 2)
        with torch.no_grad():
            for name, value in self.core.named_parameters():
                if name.startswith("weight_hh"):
                    value.copy_(scale * torch.linalg.qr(torch.randn(5, 5))[0])

    def forward(self, inputs: Tensor) -> Any:
        return self.out(self.drop(self.core(self.embed(inputs))[0][:, -1]))


def loop(model: nn.Module, steps: int, after: Any) -> list[Any]:
    """A training with everything that could be disturbed: dropout, AdamW, accumulated gradients."""
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    seen: list[Any] = []
    for _ in range(steps):
        loss = model(torch.randn(8, 6, 3)).square().mean()
        loss.backward()
        after()
        seen += [p.grad.clone() for p in model.parameters() if p.grad is not None]
        optimiser.step()
        after()
        optimiser.zero_grad()
    return [*seen, *(p.detach().clone() for p in model.parameters())]


def test_what_is_found_is_what_certify_says() -> None:
    model = Tagger()
    certify = Certify(model, every=3)
    assert [certify.step() is not None for _ in range(7)] == [False, False, True, False, False, True, False]
    W = model.core.weight_hh_l0.detach().numpy()
    judged = certes.certify(certes.RateNetwork(W, "tanh", step=1.0), refute=False)
    assert [found.step for found in certify.history] == [3, 6]
    for found in certify.history:
        assert found.verdict == judged.verdict == "contracting"
        assert found.factor == judged.factor == pytest.approx(0.3, abs=1e-3)
        assert found.rate is None
        assert found.seconds > 0


def test_a_training_never_notices() -> None:
    """The same bits with and without: gradients in the middle, weights, modes, every generator of random numbers."""
    plain, watched = Tagger(), Tagger()
    watched.drop.eval()  # a mode of its own, as users freeze batch normalisation
    plain.drop.eval()
    certify = Certify(watched, every=1, refute=True)
    one = loop(plain, 4, lambda: None)
    draws = [torch.rand(3).tolist(), np.random.random(3).tolist(), random.random()]
    two = loop(watched, 4, certify.step)
    assert [torch.rand(3).tolist(), np.random.random(3).tolist(), random.random()] == draws
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert watched.training
    assert not watched.drop.training
    assert all(p.requires_grad for p in watched.parameters())
    assert len(certify.history) == 8


def test_a_parametrisation_in_training_mode_takes_no_step() -> None:
    """Spectral normalisation moves its buffers whenever it is read in training mode."""
    model = Tagger()
    nn.utils.parametrizations.spectral_norm(model.core, "weight_hh_l0")
    before = copy.deepcopy(model.state_dict())
    assert Certify(model).now().verdict in ("contracting", "undecided")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


@pytest.mark.cases(2)
@pytest.mark.parametrize("options", [
    {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}, {"nonlinearity": "relu"},
    {"bias": False},
])  # fmt: skip
def test_layers_and_directions(options: dict[str, Any]) -> None:
    """All have to contract: one that does not is enough for a no."""
    model = Tagger(**options)
    certify = Certify(model, on_lost="ignore")
    first = certify.now()
    assert first.verdict == "contracting"
    assert first.factor is not None
    assert 0.299 < first.factor < 1.0
    for name in [name for name, _ in model.core.named_parameters() if name.startswith("weight_hh")]:
        with torch.no_grad():
            kept = getattr(model.core, name).clone()
            getattr(model.core, name).mul_(20.0)
        assert certify.now().verdict != "contracting", name
        with torch.no_grad():
            getattr(model.core, name).copy_(kept)
        assert certify.now()[1:4] == first[1:4]


def test_the_slower_of_two_directions_counts() -> None:
    model = Tagger(bidirectional=True)
    with torch.no_grad():
        model.core.weight_hh_l0_reverse.mul_(2.0)
    assert Certify(model).now().factor == pytest.approx(0.6, abs=1e-3)


def test_cells_and_half_precision() -> None:
    torch.manual_seed(0)
    cell = nn.RNNCell(3, 4, nonlinearity="relu")
    with torch.no_grad():
        cell.weight_hh.mul_(0.5)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        found = Certify(cell.to(dtype)).now()
        W = cell.weight_hh.detach().double().numpy()
        judged = certes.certify(certes.RateNetwork(W, "relu", step=1.0), refute=False)
        assert (found.verdict, found.factor) == (judged.verdict, judged.factor)


@pytest.mark.parametrize("guarantee", ["euler", "continuous"])
def test_networks_of_certes(guarantee: Any) -> None:
    """Alone and inside a model; certified after every step, whatever the optimiser does."""
    torch.manual_seed(0)
    net = AdaDiagNet(3, [4, 4], 2, step=(0.05, 0.3), guarantee=guarantee)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, inputs: Tensor) -> Any:
            return self.net(inputs)[0]

    model = Last()
    certify = Certify(model, every=1, on_lost="raise")
    loop(model, 3, certify.step)
    assert len(certify.history) == 6
    assert certify.certified
    for found in certify.history:
        assert (found.factor is None) is (guarantee == "continuous")
        assert (found.rate is None) is (guarantee == "euler")
    assert Certify(net).now()[1:4] == certify.now()[1:4]


class Own(nn.Module):
    """A leaky network of one's own, its weights scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.ParameterDict({"W": nn.Parameter(0.4 * torch.eye(3))})
        self.register_buffer("drive", torch.ones(3, 2))

    @property
    def scaled(self) -> Tensor:
        return 2.0 * self.core["W"]


def test_models_of_ones_own() -> None:
    model = Own()
    with pytest.raises(InputError, match="no network"):
        Certify(model)
    base = {"form": "hopfield", "activation": "relu", "step": 0.1, "input_tensor": "drive"}
    by_name = Certify(model, spec={**base, "tensors": {"W": "core.W"}})
    scaled = Certify(model, spec={**base, "tensors": {"W": "scaled"}})
    by_function = Certify(model, system=lambda m: certes.HopfieldNetwork(m.scaled.numpy(), "relu", step=0.1))
    assert by_name.now().factor == pytest.approx(0.9 + 0.1 * 0.4, abs=1e-4)
    assert scaled.now().factor == pytest.approx(0.9 + 0.1 * 0.8, abs=1e-4)
    assert by_function.now().factor == scaled.now().factor
    with torch.no_grad():
        model.core["W"].mul_(2.0)
    assert by_name.now().factor == pytest.approx(0.98, abs=1e-4), "the weights of this moment"


@pytest.mark.parametrize(("arguments", "field"), [
    ({"every": 0}, "every"), ({"every": True}, "every"), ({"every": 2.0}, "every"), ({"on_lost": "stop"}, "on_lost"),
    ({"spec": {"form": "rate"}}, "spec.tensors"), ({"spec": {}, "system": len}, "spec"),
    ({"spec": {"form": "rate", "tensors": {"W": "core.nothing"}, "activation": "tanh"}}, "spec.tensors"),
    ({"spec": {"form": "rate", "tensors": {"W": "nowhere.at.all"}, "activation": "tanh"}}, "spec.tensors"),
    ({"spec": {"form": "rate", "tensors": {"W": "core"}, "activation": "tanh"}}, "spec.tensors"),
])  # fmt: skip
def test_what_cannot_be_is_said_at_once(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        Certify(Tagger(), **arguments)
    assert caught.value.field == field


def test_models_that_cannot_be() -> None:
    for model, slug in (
        (nn.Linear(2, 2), "unsupported"), (nn.Sequential(nn.RNN(2, 2), nn.RNN(2, 2)), "ambiguous"),
        (nn.Sequential(nn.GRU(2, 2)), "unsupported-cell"), (nn.LSTMCell(2, 2), "unsupported-cell"),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            Certify(model)
        assert caught.value.slug == slug


def test_weights_that_are_not_finite_raise_and_leave_the_modes() -> None:
    model = Tagger()
    certify = Certify(model)
    with torch.no_grad():
        model.core.weight_hh_l0[0, 0] = float("nan")
    with pytest.raises(InputError):
        certify.now()
    assert model.training
    assert torch.is_grad_enabled()
    assert certify.history == []


@pytest.mark.parametrize("how", ["ignore", "warn", "raise"])
def test_a_network_that_is_no_longer_certified(how: Any) -> None:
    model = Tagger()
    certify = Certify(model, every=1, on_lost=how, refute=True)
    certify.step()
    with torch.no_grad():
        model.core.weight_hh_l0.copy_(3.0 * torch.eye(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if how == "raise":
            with pytest.raises(CertificateLostError, match="no longer certified: not_contracting") as caught:
                certify.step()
            assert caught.value.found is certify.history[-1]
        elif how == "warn":
            with pytest.raises(RuntimeWarning, match="after step 2"):
                certify.step()
        else:
            certify.step()
        assert not certify.certified
        assert certify.history[-1].factor is None
        certify.step()  # it was lost before: nothing more is said
    assert [found.verdict for found in certify.history] == ["contracting", "not_contracting", "not_contracting"]


def lightning_model(scale: float = 0.3) -> Any:
    pl = pytest.importorskip("pytorch_lightning")

    class Model(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = Tagger(scale)

        def training_step(self, batch: Any, _: int) -> Tensor:
            loss: Tensor = self.net(batch[0]).square().mean()
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-2)

    return Model()


def fit(folder: Path, model: Any, *parts: Any, steps: int = 7, **options: Any) -> Any:
    import pytorch_lightning as pl

    pl.seed_everything(0)
    data = torch.utils.data.TensorDataset(torch.randn(64, 6, 3))
    trainer = pl.Trainer(
        max_steps=steps, callbacks=list(parts), accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, enable_checkpointing=False, **options,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=4))
    return trainer


@pytest.mark.slow
def test_lightning(tmp_path: Path) -> None:
    """Real PyTorch Lightning: steps of the optimiser are counted, and the weights are those of a training without."""
    model = lightning_model()
    callback = callbacks.LightningCertify(every=3)
    trainer = fit(tmp_path, model, callback)
    assert [found.step for found in callback.history] == [3, 6, 7], "and the end"
    assert all(found.verdict == "contracting" for found in callback.history)
    assert float(trainer.logged_metrics["certes/certified"]) == 1.0
    assert float(trainer.logged_metrics["certes/factor"]) == pytest.approx(callback.history[1].factor, rel=1e-6)
    other = lightning_model()
    fit(tmp_path, other)
    for name, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert [found[:4] for found in callback.history[-1:]] == [(7, *Certify(model).now()[1:4])]
    again = callbacks.LightningCertify(every=3)
    again.load_state_dict(callback.state_dict())
    assert again.history == callback.history
    accumulated = callbacks.LightningCertify(every=2, log=False)
    fit(tmp_path, lightning_model(), accumulated, steps=4, accumulate_grad_batches=2)
    assert [found.step for found in accumulated.history] == [2, 4]


@pytest.mark.slow
def test_lightning_ends_where_a_certificate_is_lost(tmp_path: Path) -> None:
    pl = pytest.importorskip("pytorch_lightning")

    class Break(pl.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                with torch.no_grad():
                    module.net.core.weight_hh_l0.copy_(3.0 * torch.eye(5))

    callback = callbacks.LightningCertify(every=2, on_lost="raise")
    with pytest.raises(CertificateLostError):
        fit(tmp_path, lightning_model(), Break(), callback)
    assert [found.verdict == "contracting" for found in callback.history] == [True, False]
    with pytest.raises(InputError):
        fit(tmp_path, type("Bare", (lightning_model().__class__,), {})(), callbacks.LightningCertify(every=0))


def test_without_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(vars(callbacks), "LightningCertify", raising=False)
    with pytest.raises(ImportError, match="pip install lightning"):
        callbacks.LightningCertify
    with pytest.raises(AttributeError):
        callbacks.Nothing


def test_found_is_plain() -> None:
    found = Found(3, "contracting", None, 0.5, 0.1, "")
    assert Found(**found._asdict()) == found
