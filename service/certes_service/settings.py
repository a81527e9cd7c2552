"""What an operator may set. Every limit is in bytes, states or seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Settings:
    """Settings of the service.

    Attributes:
        data: directory of the embedded store; created if missing.
        allow_remote: whether it may listen beyond loopback.
        max_body_bytes: limit on a request body, enforced while it arrives.
        max_json_bytes: limit on a JSON body or part; JSON costs far more memory than its length.
        max_states: limit on the number of states n of a dense system.
        solvers: how many requests are solved at the same time.
        queue: how many more may wait for a solver before the service answers 503.
        solve_seconds: limit on the time a solver may take for one request.
        signing_key: Ed25519 private key (PEM) that signs every certificate, or None: unsigned.
    """

    data: Path
    allow_remote: bool = False
    max_body_bytes: int = 256 * MEBIBYTE
    max_json_bytes: int = 32 * MEBIBYTE
    max_states: int = 4096
    solvers: int = 2
    queue: int = 64
    solve_seconds: float = 300.0
    signing_key: bytes | None = field(default=None, repr=False)
