"""Questions that misbehave, for tests of solver processes: each does what its part ``what`` says."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from certes_service.questions.base import Context, Solved, Spent


class Probe:
    """Answers with what it saw; an answer with ``checks`` needs no certificate."""

    kind: ClassVar[str] = "probe"

    def __init__(self, parts: Mapping[str, Any], weights: bytes) -> None:
        self.given, self.weights, self.name = dict(parts), weights, "probe"

    @classmethod
    def rebuild(cls, parts: Mapping[str, Any], weights: bytes, name: str) -> Self:
        return cls(parts, weights)

    def undecided(self, reason: Spent, detail: str) -> Solved:
        return Solved({"reason": reason, "detail": detail})

    def solve(self, context: Context) -> Solved:
        done: Callable[[Context], dict[str, Any] | None] = getattr(self, self.given["what"])
        return Solved({"pid": os.getpid(), **(done(context) or {})})

    def nothing(self, _: Context) -> None:
        pass

    def surroundings(self, _: Context) -> dict[str, Any]:
        limits = ("AS", "CORE", "FSIZE", "NOFILE")
        return {
            "environment": dict(os.environ),
            "group": os.getpgid(0),
            "session": os.getsid(0),
            "nice": os.nice(0),
            "cwd": os.getcwd(),
            "limits": {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in limits},
            "open": len(os.listdir("/proc/self/fd")),
            "modules": sorted(sys.modules),
        }

    def size(self, context: Context) -> dict[str, Any]:
        attached = {name: [len(entry.envelope), len(entry.proof)] for name, entry in context.attachments.items()}
        return {"weights": len(self.weights), "attached": attached, "resume": len(context.resume or b"")}

    def echo(self, _: Context) -> dict[str, Any]:
        return {"echo": self.weights.decode()}

    def large(self, _: Context) -> dict[str, Any]:
        return {"text": "x" * self.given["length"]}

    def chatter(self, context: Context) -> None:
        """Much progress, and checkpoints between."""
        for k in range(300):
            context.progress("counting", k / 299, f"at {k}")
            if k % 30 == 0:
                context.checkpoint(b"%d" % k * 10_000)
            time.sleep(0.002)

    def late_voice(self, context: Context) -> None:
        """A thread that goes on talking after the task has ended."""

        def talk() -> None:
            for _ in range(100):
                context.progress("late")
                context.checkpoint(b"late")
                time.sleep(0.01)

        threading.Thread(target=talk, daemon=True).start()

    def sleep(self, context: Context) -> None:
        """With a child and a grandchild, and no ear for signals."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        script = (
            "import os, subprocess, sys, time; "
            "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
            "print(inner.pid, flush=True); time.sleep(600)"
        )
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        inner = int(child.stdout.readline())
        context.checkpoint(json.dumps([os.getpid(), child.pid, inner]).encode())
        time.sleep(600)

    def stuck(self, context: Context) -> None:
        """In C code that never lets go of the interpreter."""
        context.checkpoint(json.dumps([os.getpid()]).encode())
        sum(range(10**13))

    def memory(self, _: Context) -> dict[str, Any]:
        return {"length": len(bytearray(self.given["bytes"]))}

    def creeping(self, _: Context) -> None:
        kept = []
        while len(kept) < self.given["most"] // 2**24:
            kept.append(bytearray(b"x" * 2**24))
            time.sleep(0.005)

    def leave(self, _: Context) -> None:
        os._exit(3)

    def exit(self, _: Context) -> None:
        sys.exit("no")

    def fault(self, _: Context) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def killed(self, context: Context) -> None:
        """Ended by a signal that nobody here sent, in so far as anyone can see."""
        print("the last words speak of MemoryError", flush=True)
        os.kill(os.getpid(), self.given["signal"])
        time.sleep(60)

    def fail(self, _: Context) -> None:
        raise RuntimeError("secret path /root/x")

    def deep(self, context: Context) -> None:
        self.deep(context)

    def orphan(self, _: Context) -> None:
        """Dies, and leaves a forked child that holds its pipes open."""
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        os._exit(4)

    def files(self, _: Context) -> dict[str, Any]:
        found = {}
        with contextlib.suppress(OSError), open("/tmp/certes-probe", "w") as file:
            file.write("x" * 10_000)
            file.flush()
            found["written"] = True
        with contextlib.suppress(OSError):
            os.unlink("/tmp/certes-probe")
        opened = []
        with contextlib.suppress(OSError):
            opened += [open(os.devnull) for _ in range(200)]  # noqa: SIM115
        return found | {"opened": len(opened)}

    def prints(self, _: Context) -> None:
        """As libraries do, also from C."""
        print("to stdout")
        os.write(1, b"to descriptor 1\n" * 1000)
        sys.stderr.write("y" * 500_000)
        assert sys.stdin.read() == ""

    def raw(self, context: Context) -> None:
        """Writes to the pipe itself, which a question cannot know."""
        context.checkpoint(json.dumps([os.getpid()]).encode())
        for descriptor in range(3, 64):
            target = ""
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/self/fd/{descriptor}")
            if target.startswith("pipe:"):
                with contextlib.suppress(OSError):
                    os.write(descriptor, bytes.fromhex(self.given["bytes"]))
        time.sleep(self.given.get("seconds", 0.0))


class TrainingProbe(Probe):
    kind: ClassVar[str] = "training-probe"
    trains = True


KINDS = {"probe": Probe, "training-probe": TrainingProbe}
