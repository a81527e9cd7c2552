"""A client of the load: some connections that ask again and again for some seconds, and how long each answer took.

python -m benchmarks.load_client URL SECONDS same|fresh CONNECTIONS NUMBER
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from urllib.parse import urlsplit

import numpy as np
from certes.weights import to_bytes

from benchmarks.load import SIZE, SPEC

_BOUNDARY = "certes-benchmark"


def request(number: int) -> tuple[bytearray, int]:
    """A request with a network in it, and where the first weight stands."""
    W = np.random.default_rng(number).standard_normal((SIZE, SIZE)).astype(np.float32)
    data = to_bytes({"W": W * np.float32(0.5 / np.linalg.norm(W, 2))})
    parts = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="spec"\r\nContent-Type: application/json\r\n\r\n'
        f'{json.dumps(SPEC)}\r\n--{_BOUNDARY}\r\nContent-Disposition: form-data; name="weights"; '
        f'filename="w.safetensors"\r\nContent-Type: application/octet-stream\r\n\r\n'
    ).encode()
    body = parts + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
    head = (
        "POST /v1/certificates HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: wait=60\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    return bytearray(head + body), len(head) + len(parts) + len(data) - 4 * SIZE * SIZE


async def ask(host: str, port: int, until: float, fresh: bool, number: int) -> list[float]:
    """One connection."""
    reader, writer = await asyncio.open_connection(host, port)
    message, place = request(number if fresh else 0)
    times = []
    k = 0
    while time.perf_counter() < until:
        if fresh:  # another network: its first weight is another
            k += 1
            struct.pack_into("<f", message, place, 1e-3 + 1e-6 * k)
        began = time.perf_counter()
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        if " 200 " not in lines[0]:
            raise RuntimeError(lines[0])
        length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        await reader.readexactly(length)
        times.append(time.perf_counter() - began)
    writer.close()
    return times


async def main(url: str, seconds: float, fresh: bool, connections: int, number: int) -> None:
    """All connections; prints their times."""
    where = urlsplit(url)
    host, port = str(where.hostname), int(where.port or 80)
    await ask(host, port, time.perf_counter() + 0.2, fresh, 7777 + number)  # warm
    until = time.perf_counter() + seconds
    found = await asyncio.gather(
        *(ask(host, port, until, fresh, 100 * number + k + int(time.time() * 1e3) % 10**7) for k in range(connections))
    )
    print(json.dumps([entry for times in found for entry in times]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3] == "fresh", int(sys.argv[4]), int(sys.argv[5])))
