"""The pytest plugin: a repository's policy as tests, and ``certified`` for networks that a test has at hand.

    pytest --certes                      # every model of certes.toml is a test
    pytest --certes=ci/certes.toml
    pytest --certes --certes-server URL  # (or CERTES_SERVER) a service searches; what it answers is verified here

    def test_the_controller_forgets_its_start(certified):
        certified(load_controller(), rate_at_least=0.1)

pytest loads this module wherever Certes is installed, so it imports nothing of Certes before it is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from certes_client.policy.checking import Checker

__all__ = ["assert_contracting", "certified"]

_POLICY = "certes.toml"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--certes`` and ``--certes-server``."""
    group = parser.getgroup("certes", "stability certificates")
    group.addoption(
        "--certes", metavar="POLICY", nargs="?", const=_POLICY, default=None,
        help="test every model of a policy file (default: certes.toml in the root directory)",
    )  # fmt: skip
    group.addoption(
        "--certes-server", metavar="URL", default=os.environ.get("CERTES_SERVER") or None,
        help="let this service search for the certificates of --certes (default: what CERTES_SERVER says)",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """A policy that is asked for and is not there is an error, not a run without tests."""
    config.addinivalue_line("markers", "certes: a model of a policy (the plugin of Certes)")
    given = config.getoption("--certes")
    if given is None:
        return
    path = _policy(config, given)
    if not path.is_file():
        raise pytest.UsageError(f"--certes: no policy file {str(path)!r} ('certes init' writes a first one)")


def pytest_collection(session: pytest.Session) -> None:
    """The policy belongs to the run, wherever the other tests are."""
    given = session.config.getoption("--certes")
    if given is not None:
        path = str(_policy(session.config, given))
        if path not in session.config.args:
            session.config.args.append(path)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """The policy that was asked for, and no other."""
    given = parent.config.getoption("--certes")
    if given is None or file_path.resolve() != _policy(parent.config, given).resolve():
        return None
    return PolicyFile.from_parent(parent, path=file_path)


def _policy(config: pytest.Config, given: str) -> Path:
    return config.rootpath / given


class PolicyFile(pytest.File):
    """A policy: one test for each of its models."""

    def collect(self) -> Iterator[pytest.Item]:
        """The models, in the policy's order.

        Raises:
            UsageError: no policy.
        """
        from certes.errors import InputError

        from certes_client.policy.checking import Checker
        from certes_client.policy.document import Policy

        try:
            policy = Policy.read(self.path)
            server = self.config.getoption("--certes-server")
            checker = Checker(policy, self.path.absolute().parent, server=server)
        except InputError as error:
            raise pytest.UsageError(str(error)) from error
        for name in policy.models:
            yield ModelItem.from_parent(self, name=name, checker=checker)


class ModelItem(pytest.Item):
    """A model: passes if everything holds that the policy demands of it. ``undecided`` is no pass."""

    def __init__(self, *, checker: Checker, **more: Any) -> None:
        super().__init__(**more)
        self._checker = checker
        self.add_marker("certes")

    def runtest(self) -> None:
        """Check it."""
        from certes_client.remote.errors import RemoteError

        try:
            outcome = self._checker.check(self.name)
        except RemoteError as error:
            raise _NotKept(f"{self.name}: the service was asked, and nothing is certified: {error}") from error
        if outcome.certificate is not None:
            self.user_properties.append(("certes_certificate", outcome.certificate.digest))
        if outcome.state != "passed":
            raise _NotKept(f"{outcome.model} ({outcome.file}) {outcome.state}: {outcome.sentence()}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """What is wrong, in words; the traceback would tell of Certes, not of the model."""
        if isinstance(excinfo.value, _NotKept):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo, style))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it stands."""
        return self.path, None, f"certes: {self.name}"


class _NotKept(Exception):
    """A promise that does not hold, or that a service did not prove; the words say all of it."""


def assert_contracting(
    network: Any,
    *,
    rate_at_least: float | None = None,
    factor_at_most: float | None = None,
    seconds: float | None = None,
) -> Any:
    """Fail the test unless a network is certified.

    Args:
        network: a system, an assembly, or a torch module that :class:`certes.nn.callback.Certify` takes.
        rate_at_least: continuous time, 1/(unit of time).
        factor_at_most: maps, per step.
        seconds: time limit of the search.

    Returns:
        What was found, with ``verdict``, ``rate``, ``factor`` and ``detail``.

    Raises:
        AssertionError: with the reason in words. InputError: no such network.
    """
    __tracebackhide__ = True
    from certes.words import claimed

    found = _answer(network, seconds)
    if found.verdict != "contracting":
        said = found.verdict.replace("_", " ")
        raise AssertionError(f"wanted a contracting network, found {said}: {found.detail}".rstrip(": "))
    gated = getattr(found, "gated", None)  # a composition's own numbers are those where a gate is open
    rate, factor = (found.rate, found.factor) if gated is None else (gated["rate"], gated["factor"])
    if rate_at_least is not None and (rate is None or rate < rate_at_least):
        said = "none" if rate is None else claimed(rate, up=False)
        raise AssertionError(f"wanted a certified rate of at least {rate_at_least:g}, found {said}")
    if factor_at_most is not None and (factor is None or factor > factor_at_most):
        said = "none" if factor is None else claimed(factor, up=True)
        raise AssertionError(f"wanted a certified factor of at most {factor_at_most:g}, found {said}")
    return found


def _answer(network: Any, seconds: float | None) -> Any:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(network, torch.nn.Module):
        from certes.nn.callback import Certify

        return Certify(network, seconds=seconds, refute=True).now()
    from certes.certify import certify

    return certify(network, seconds=seconds)


@pytest.fixture
def certified() -> Callable[..., Any]:
    """:func:`assert_contracting`, as a fixture."""
    return assert_contracting
