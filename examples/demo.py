"""What Certes does, on real weights: ``make demo``.

Starts the real service on loopback with an empty data directory, asks it about six trained recurrent networks and one
that is stable, downloads every certificate, checks each with the offline verifier in a process of its own, and shuts
the service down. Then it repairs one of those that fail (a short budget), composes an assembly, and verifies both.
Exits 1 if anything is not as it should be.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certes_client import Client
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

EXAMPLES = Path(__file__).resolve().parent
MODELS = EXAMPLES / "models"
CERTES = [sys.executable, "-m", "certes_client"]
STYLES = {"contracting": "bold green", "not_contracting": "bold red", "undecided": "yellow"}
LEAKY = {"form": "rate", "tensors": {"W": "rec.weight"}}
#: The dynamics are not stored in the files: examples/models/README.md has them.
NETWORKS: list[tuple[str, dict[str, Any], str]] = [
    ("mnist-rnn-tanh-64", {"form": "torch-rnn", "activation": "tanh"}, "not_contracting"),
    ("mnist-rnn-relu-32", {"form": "torch-rnn", "activation": "relu"}, "not_contracting"),
    ("mnist-leaky-tanh-128", {**LEAKY, "activation": "tanh", "step": 0.2}, "not_contracting"),
    ("mnist-leaky-relu-256", {**LEAKY, "activation": "relu", "step": 0.1}, "not_contracting"),
    ("mnist-gru-64", {"form": "torch-rnn", "activation": "tanh"}, "undecided"),
    ("mnist-lstm-64", {"form": "torch-rnn", "activation": "tanh"}, "undecided"),
    ("stable-leaky-tanh-24", {**LEAKY, "activation": "tanh", "step": 0.2}, "contracting"),
]
#: Audited in exact rational arithmetic as well.
EXACT = {"mnist-rnn-relu-32", "stable-leaky-tanh-24"}

#: What is repaired, and how: a few epochs bring most of the accuracy back.
REPAIRED = "mnist-leaky-tanh-128"
REPAIR = ["--form", "rate", "--tensor", "rec.weight", "--activation", "tanh", "--step", "0.2", "--epochs", "8"]

LEGEND = """
factor   each step multiplies distances by at most this, in the certificate's norm
grows    near a point of rest, differences grow by this per step
time     seconds, with the journey to the service and back
"""
console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


@dataclass
class Answered:
    """One network and what the service said about it."""

    name: str
    expected: str
    answer: dict[str, Any]
    seconds: float

    @property
    def right(self) -> bool:
        """Whether it is the answer that is known, with a certificate unless it is undecided."""
        certified = self.answer["certificate"] is not None
        return self.answer["verdict"] == self.expected and certified == (self.expected != "undecided")


@contextlib.contextmanager
def service(data: Path) -> Iterator[str]:
    """A service on a port that the system picks; its URL. It must end cleanly when asked to."""
    command = [*CERTES, "serve", "--port", "0", "--data", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise SystemExit(f"the service did not start: {line!r}")
        yield found.group()
        process.send_signal(signal.SIGTERM)
        if process.wait(timeout=30) != 0:
            raise SystemExit(f"the service ended with status {process.returncode}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def ask(client: Client, answered: list[Answered]) -> None:
    """POST every network; on a terminal the table grows with every answer."""
    live = Live(console=console, refresh_per_second=4) if console.is_terminal else contextlib.nullcontext()
    with live as shown:
        for name, spec, expected in NETWORKS:
            if shown is not None:
                shown.update(Group(answers(answered), Text(f" asking about {name} ...", "dim")))
            begin = time.perf_counter()
            answer = client.certify(spec, MODELS / f"{name}.safetensors")
            answered.append(Answered(name, expected, answer, time.perf_counter() - begin))
        table = answers(answered)
        if shown is not None:
            shown.update(table)
    if not console.is_terminal:
        console.print(table)


def number(answer: dict[str, Any]) -> str:
    """Rate or factor; for a 'no' the growth of the mode that refutes it."""
    if answer["factor"] is not None:
        return f"factor {answer['factor']:.4f}"
    if answer["rate"] is not None:
        return f"rate {answer['rate']:.4f}"
    if answer["certificate"] is not None:
        return f"grows {statement(answer)['claims']['growth']:.4f}"
    return "-"


def statement(answer: dict[str, Any]) -> dict[str, Any]:
    """The predicate inside the certificate's envelope."""
    payload = json.loads(base64.b64decode(answer["certificate"]["envelope"]["payload"]))
    predicate: dict[str, Any] = payload["predicate"]
    return predicate


def reason(answer: dict[str, Any]) -> str:
    """The condition that proved it, the witness that refuted it, or why it is undecided."""
    if answer["verdict"] == "contracting":
        also = ", ".join(answer.get("also") or [])
        return str(answer["condition"]) + (f" (also {also})" if also else "")
    if answer["verdict"] == "not_contracting":
        return "a witness"
    return str(answer["reason"])


def answers(answered: list[Answered]) -> Table:
    """The answers as a table."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    table.add_column("network", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("per step", justify="right", no_wrap=True)
    table.add_column("shown by")
    table.add_column("time", justify="right", no_wrap=True)
    for entry in answered:
        verdict = entry.answer["verdict"]
        word = Text(verdict.replace("_", " "), STYLES[verdict])
        table.add_row(entry.name, word, number(entry.answer), reason(entry.answer), f"{entry.seconds:.1f}")
    return table


def download(client: Client, answered: list[Answered], folder: Path) -> dict[str, Path]:
    """Every certificate and proof as files, named as the verifier expects them."""
    paths = {}
    for entry in answered:
        link = entry.answer["certificate"]
        if link is None:
            continue
        proof = statement(entry.answer)["proof"]["sha256"]
        (folder / f"{proof}.proof.safetensors").write_bytes(client.proof(link["digest"]))
        paths[entry.name] = folder / f"{link['digest']}.certificate.json"
        paths[entry.name].write_bytes(client.envelope(link["digest"]))
    return paths


def check(paths: dict[str, Path]) -> list[str]:
    """``certes verify`` on every certificate, offline; the names of those that fail."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    for heading in ("certificate", "about", "certes verify", "obligations"):
        table.add_column(heading, no_wrap=heading != "obligations")
    failed = []
    with console.status("checking"):
        for name, path in paths.items():
            weights = MODELS / f"{name}.safetensors"
            exact = ["--exact"] if name in EXACT else []
            command = [*CERTES, "verify", str(path), "--weights", str(weights), *exact, "--json"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            report = json.loads(done.stdout) if done.stdout else {"checks": [], "reason": done.stderr[-300:]}
            if done.returncode != 0:
                failed.append(name)
            word = Text(
                "valid" if done.returncode == 0 else f"INVALID ({report['reason']})",
                "green" if done.returncode == 0 else "bold red",
            )
            if exact:
                word.append(", exact audit too")
            table.add_row(path.name[:12] + "…", name, word, f"{sum(entry['held'] for entry in report['checks'])} held")
    console.print(table)
    console.print()
    return failed


def run(arguments: list[str], folder: Path, about: str) -> dict[str, Any]:
    """A command of Certes with ``--json``, in a process of its own; what it printed."""
    env = {**os.environ, "TMPDIR": str(folder)}  # torch leaves a cache in there
    with console.status(about):
        done = subprocess.run([*CERTES, *arguments, "--json"], capture_output=True, text=True, check=False, env=env)
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"detail": done.stderr[-300:]}
    return found


def repair(folder: Path) -> bool:
    """Repair one of the networks that fail, and verify what came out."""
    target = folder / "repaired.safetensors"
    given, data = str(MODELS / f"{REPAIRED}.safetensors"), f"mnist-rows:{EXAMPLES / 'data' / 'mnist'}"
    answer = run(["repair", given, "--data", data, *REPAIR, "--out", str(target)], folder, f"repairing {REPAIRED}")
    if answer.get("verdict") != "contracting":
        console.print(Text(f"the repair failed: {answer.get('detail')}", "bold red"))
        return False
    steps = ("accuracy_before", "accuracy_projected", "accuracy_refitted", "accuracy")
    names = ("as trained, unstable", "projected", "readout refitted", "trained on inside the stable set")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    table.add_column(REPAIRED, no_wrap=True)
    table.add_column("test accuracy", justify="right")
    for name, step in zip(names, steps, strict=True):
        table.add_row(name, f"{answer[step]:.4f}")
    console.print(table)
    report = run(["verify", answer["certificate"]["path"], "--weights", str(target)], folder, "verifying")
    word = "valid" if report.get("valid") else f"INVALID ({report.get('reason')})"
    console.print(f"factor {answer['factor']:.4f} per step, certificate {word}\n")
    return bool(report.get("valid"))


def assemble(folder: Path) -> bool:
    """Compose a global workspace of networks, one of them an assembly itself, and verify its certificates."""
    given, target = EXAMPLES / "assemblies" / "workspace.yaml", folder / "assembly"
    answer = run(["compose", str(given), "--out", str(target)], folder, "composing")
    if answer.get("verdict") != "contracting":
        console.print(Text(f"the assembly failed: {answer.get('detail')}", "bold red"))
        return False
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    for heading in ("assembly", "rate"):
        table.add_column(heading, no_wrap=True)
    for name, rate in answer["modules"].items():
        table.add_row(f"{name}, alone", f"{rate:.4f}")
    for mode, rate in answer["modes"].items():
        if rate is not None:
            table.add_row(f"the whole, by {mode}", f"{rate:.4f}")
    console.print(table)
    weights = str(given.parent)  # the networks; the couplings' weights lie beside the certificates
    report = run(["verify", answer["certificate"]["path"], "--weights", weights], folder, "verifying")
    word = "valid" if report.get("valid") else f"INVALID ({report.get('reason')})"
    console.print(f"certificate of the whole and of its modules {word}\n")
    return bool(report.get("valid"))


def main() -> int:
    """Run the demo; the exit status."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="certes-demo-") as folder:
        root = Path(folder)
        with service(root / "data") as url, Client(url) as client:
            console.print(Text.assemble(("Certes", "bold"), f" {client.health()['version']} is listening on {url}"))
            console.print("Asking about seven networks: six trained on MNIST, and a random one that is stable.\n")
            answered: list[Answered] = []
            ask(client, answered)
            console.print(LEGEND)
            wrong += [entry.name for entry in answered if not entry.right]
            (root / "certificates").mkdir()
            paths = download(client, answered, root / "certificates")
        console.print("The service has shut down. Every certificate, checked offline in a process of its own:\n")
        wrong += check(paths)
        console.print("None of the trained networks is stable. One of them, repaired (a short budget):\n")
        wrong += [] if repair(root) else [f"repair of {REPAIRED}"]
        console.print("Networks of networks: a workspace of four areas, coupled by feedback that costs nothing:\n")
        wrong += [] if assemble(root) else ["the assembly"]
    if wrong:
        console.print(Text(f"Not as expected: {', '.join(wrong)}", "bold red"))
        return 1
    console.print("Every answer is the known one, and every certificate is valid.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
