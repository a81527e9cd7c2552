"""Certification along the way, in anyone's own training loop: every N steps, and what was found is kept.

    certify = Certify(model, every=100)
    for batch in batches:
        ...                                 # forward, backward, optimiser.step()
        certify.step()
    certify.history                         # [Found(step=100, verdict='contracting', factor=0.93, ...), ...]

and with PyTorch Lightning ``Trainer(callbacks=[LightningCertify(every=100)])``. A training goes on as it would without:
weights, gradients, modes, buffers and random states stay as they are. What is certified are the weights of that moment;
nothing is said of the steps between.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from certes.assemblies import Assembly
from certes.cells import GatedNetwork
from certes.certify import certify
from certes.composition import torch_layers
from certes.errors import CertesError, InputError
from certes.spec import SystemSpec
from certes.systems import RateNetwork, System, UnsupportedCell
from certes.weights import WeightFile, read_weights, to_bytes

OnLost = Literal["ignore", "warn", "raise"]
#: What a model is to be certified as: networks or models that export one, all of which have to contract.
Subjects = list[Any]
_SPEC_TENSORS = ("input_tensor", "bias_tensor")


class Found(NamedTuple):
    """What was found at a step.

    Attributes:
        step: how many steps were done.
        verdict: ``contracting``, ``not_contracting`` or ``undecided``.
        rate: certified, in 1/(unit of time), of a network in continuous time; else None.
        factor: certified, per step, of a map; else None.
        seconds: that it took.
        detail: the cause, in words.
    """

    step: int
    verdict: str
    rate: float | None
    factor: float | None
    seconds: float
    detail: str


class CertificateLostError(CertesError):
    """A network that was certified is no longer.

    Attributes:
        found: what was found.
    """

    def __init__(self, found: Found) -> None:
        super().__init__(_lost(found))
        self.found = found


class Certify:
    """Certifies a network every so many steps.

    Args:
        model: a network of :mod:`certes.nn` or any model with a method ``system``; a ``torch.nn.RNN`` (of any number of
            layers and directions) or ``RNNCell``; or a model with exactly one of these somewhere inside.
        every: steps between two certifications.
        spec: of any other model, what it is: entries of :class:`certes.spec.SystemSpec`, where tensors are named as
            in the model (``{"form": "rate", "tensors": {"W": "core.weight"}, "activation": "tanh", "step": 0.1}``).
        system: or a function that makes the network (:class:`certes.RateNetwork`, ...) of the model.
        seconds: limit on the time of one certification; None: none.
        refute: whether to look for a witness where there is no proof, which takes longer.
        on_lost: what happens when a network that was certified is no longer: ``ignore``, ``warn`` or ``raise``.

    Attributes:
        history: what was found, in order.
        steps: how many steps were counted.

    Raises:
        InputError: nothing that can be certified in the model, several such networks, or entries that do not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        every: int = 100,
        *,
        spec: Mapping[str, Any] | None = None,
        system: Callable[[Any], System | Assembly] | None = None,
        seconds: float | None = None,
        refute: bool = False,
        on_lost: OnLost = "warn",
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InputError("every", repr(every), "a whole number, at least 1", "out-of-range")
        if on_lost not in ("ignore", "warn", "raise"):
            raise InputError("on_lost", repr(on_lost), "ignore, warn or raise", "unknown-value")
        if spec is not None and system is not None:
            raise InputError("spec", "both spec and system", "at most one of the two", "conflict")
        self.model, self.every, self.on_lost = model, every, on_lost
        self.seconds, self.refute = seconds, refute
        self.history: list[Found] = []
        self.steps = 0
        self._export = _exporter(model, spec, system)
        with _still(model):
            self._export()  # what cannot be is said before the training, not in the middle of it

    def step(self) -> Found | None:
        """Count a step; what was found, if it was time to certify.

        Raises:
            CertificateLostError: see ``on_lost``.
        """
        self.steps += 1
        return self.now() if self.steps % self.every == 0 else None

    def now(self) -> Found:
        """Certify the network as it is.

        Raises:
            CertificateLostError: see ``on_lost``.
        """
        began = time.perf_counter()
        with _still(self.model):
            subjects = self._export()
            answers = [certify(each, seconds=self.seconds, refute=self.refute) for each in subjects]
        found = _together(answers, self.steps, time.perf_counter() - began)
        lost = bool(self.history) and self.history[-1].verdict == "contracting" != found.verdict
        self.history.append(found)
        if lost and self.on_lost == "raise":
            raise CertificateLostError(found)
        if lost and self.on_lost == "warn":
            warnings.warn(_lost(found), RuntimeWarning, stacklevel=3)
        return found

    @property
    def certified(self) -> bool:
        """Whether the network was certified the last time."""
        return bool(self.history) and self.history[-1].verdict == "contracting"


def _lost(found: Found) -> str:
    return f"after step {found.step} the network is no longer certified: {found.verdict}: {found.detail}"


def _together(answers: list[Any], step: int, seconds: float) -> Found:
    """One answer about several networks: that of the worst."""
    order = ("not_contracting", "undecided", "contracting")
    verdict = min((answer.verdict for answer in answers), key=order.index)
    detail = next(answer.detail for answer in answers if answer.verdict == verdict)
    rate = factor = None
    if verdict == "contracting":
        rates = [each for each in (_as_run(answer, "rate") for answer in answers) if each is not None]
        factors = [each for each in (_as_run(answer, "factor") for answer in answers) if each is not None]
        rate, factor = min(rates, default=None), max(factors, default=None)
    return Found(step, verdict, rate, factor, seconds, detail)


def _as_run(answer: Any, name: str) -> float | None:
    """The rate or factor of the network as it is run: with its gate, if it has one."""
    gated = getattr(answer, "gated", None)
    found: float | None = getattr(answer, name) if gated is None else gated[name]
    return found


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """Look at a model without moving anything in it: no gradients, no training mode, no draws.

    A parametrisation such as spectral normalisation takes a step of its own whenever it is read in training mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def _exporter(
    model: nn.Module, spec: Mapping[str, Any] | None, system: Callable[[Any], System | Assembly] | None
) -> Callable[[], Subjects]:
    """A function that makes what is to be certified of the model as it then is."""
    if system is not None:
        return lambda: [system(model)]
    if spec is not None:
        known = SystemSpec.parse(spec)
        return lambda: [_of_spec(known, model)]
    name, part = _only(model)
    return lambda: _subjects(name, part)


def _only(model: nn.Module) -> tuple[str, nn.Module]:
    """The one network in a model, and its name.

    Raises:
        InputError: there is none, or there are several.
    """
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(each == "" or name.startswith(each + ".") for each in found)
        if not inside and (_exports(module) or isinstance(module, nn.RNNBase | nn.RNNCellBase)):
            found[name] = module
    if len(found) != 1:
        given = "no network that is recognised" if not found else f"several networks: {', '.join(found)}"[:200]
        expected = "one torch.nn.RNN, RNNCell or model with a method system; or give spec, or system"
        raise InputError("model", given, expected, "unsupported" if not found else "ambiguous")
    return next(iter(found.items()))


def _exports(module: nn.Module) -> bool:
    """Whether it has a method ``system``; a part of that name is none."""
    found = getattr(module, "system", None)
    return callable(found) and not isinstance(found, nn.Module)


def _subjects(name: str, part: nn.Module) -> Subjects:
    if _exports(part):
        return [part]
    if isinstance(part, nn.RNNCell):
        return [RateNetwork(_array(part.weight_hh), part.nonlinearity, step=1.0)]
    if not isinstance(part, nn.RNN):
        given = f"{name or 'the model'} is a {type(part).__name__}"
        raise InputError(
            "model", given, "a torch.nn.RNN (a gated cell: certes.certify, over a box of inputs)", "unsupported-cell"
        )
    sides = ("", "_reverse") if part.bidirectional else ("",)
    kinds = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if part.bias else ()))
    names = [f"{kind}_l{k}{side}" for k in range(part.num_layers) for side in sides for kind in kinds]
    file = _file({each: getattr(part, each) for each in names})
    if part.num_layers == 1 and not part.bidirectional:
        return [_known(SystemSpec.parse({"form": "torch-rnn", "activation": part.nonlinearity}).system(file))]
    return [assembly for _, assembly in torch_layers.read(file, activation=part.nonlinearity)]


def _of_spec(spec: SystemSpec, model: nn.Module) -> System | Assembly:
    named = [*spec.tensors.values(), *(getattr(spec, entry) for entry in _SPEC_TENSORS)]
    file = _file({name: _named(model, name) for name in named if name is not None})
    return _known(spec.system(file))


def _known(system: System | GatedNetwork | UnsupportedCell) -> System:
    if isinstance(system, UnsupportedCell | GatedNetwork):
        raise InputError("model", system.detail, "a network that can be certified", "unsupported-cell")
    return system


def _named(model: nn.Module, name: str) -> Tensor:
    """A parameter, a buffer or a parametrised tensor.

    Raises:
        InputError: there is no such tensor.
    """
    place, _, last = name.rpartition(".")
    try:
        found = getattr(model.get_submodule(place), last)
    except AttributeError:
        found = None
    if not isinstance(found, Tensor):
        names = ", ".join(each for each, _ in model.named_parameters())[:300]
        raise InputError("spec.tensors", repr(name), f"a tensor of the model: {names}", "unknown-tensor")
    return found


def _file(tensors: Mapping[str, Tensor]) -> WeightFile:
    return read_weights(to_bytes({name: _array(value) for name, value in tensors.items()}))


def _array(value: Tensor) -> Any:
    """Values as they are; the half precisions are widened, which changes none."""
    plain = value.detach().cpu()
    return (plain.float() if plain.dtype in (torch.float16, torch.bfloat16) else plain).numpy().copy()


def _lightning() -> Any:
    """The package that the user trains with: ``lightning.pytorch``, or ``pytorch_lightning`` by its older name."""
    names = ("lightning.pytorch", "pytorch_lightning")
    for name in sorted(names, key=lambda each: each not in sys.modules):
        try:
            return import_module(name)
        except ImportError:
            continue
    raise ImportError("LightningCertify needs PyTorch Lightning: pip install lightning")


def _callback(base: type[Any]) -> type[Any]:
    """The class for Lightning; it can only be made where Lightning is."""

    class LightningCertify(base):  # type: ignore[misc]
        """:class:`Certify` as a callback of PyTorch Lightning; on the first process only.

        Its history goes into Lightning's checkpoints. With ``log``, ``certes/certified`` (1 or 0) and ``certes/rate``
        or ``certes/factor`` are logged.

        Args:
            every: optimiser steps between two certifications.
            log: whether to log.
            options: of :class:`Certify`.

        Attributes:
            history: what was found, in order; also at the end of the training.
        """

        def __init__(self, every: int = 100, *, log: bool = True, **options: Any) -> None:
            super().__init__()
            self.every, self.log, self.options = every, log, options
            self.history: list[Found] = []
            self._certify: Certify | None = None

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            """Find the network; what cannot be certified is said now."""
            if trainer.is_global_zero:
                self._certify = Certify(pl_module, self.every, **self.options)
                self._certify.history = self.history
                self._certify.steps = trainer.global_step

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            """Certify if enough steps of the optimiser are done; a batch need not be a step."""
            mine = self._certify
            if mine is None or trainer.global_step // self.every == mine.steps // self.every:
                return
            mine.steps = trainer.global_step
            found = mine.now()
            if self.log:
                values = {"certified": float(mine.certified), "rate": found.rate, "factor": found.factor}
                for name, value in values.items():
                    if value is not None:
                        pl_module.log(f"certes/{name}", value, rank_zero_only=True)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            """Certify what came out."""
            if self._certify is not None:
                self._certify.steps = trainer.global_step
                if not self.history or self.history[-1].step != trainer.global_step:
                    self._certify.now()

        def state_dict(self) -> dict[str, Any]:
            """For Lightning's checkpoints."""
            return {"history": [list(found) for found in self.history]}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            """From Lightning's checkpoints."""
            self.history[:] = [Found(*found) for found in state_dict["history"]]

    return LightningCertify


def __getattr__(name: str) -> Any:
    if name != "LightningCertify":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = _callback(_lightning().Callback)
    return made
