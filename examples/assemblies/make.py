"""Write the weights of the example assemblies: small random networks, the same bytes every time.

python examples/assemblies/make.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from certes.weights import write_weights

HERE = Path(__file__).parent


def modules(seed: int, sizes: dict[str, int], gain: float) -> dict[str, np.ndarray]:
    """Random recurrent weights NAME.W with singular values up to ``gain``, float32."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, size in sizes.items():
        weights = rng.standard_normal((size, size))
        found[f"{name}.W"] = (gain * weights / np.linalg.norm(weights, 2)).astype(np.float32)
    return found


def block(seed: int, rows: int, columns: int, scale: float) -> np.ndarray:
    """A random coupling block whose contributions have size ``scale``, float32."""
    rng = np.random.default_rng(seed)
    return (scale / np.sqrt(columns) * rng.standard_normal((rows, columns))).astype(np.float32)


def two() -> dict[str, np.ndarray]:
    """Two areas and one free block between them."""
    return modules(1, {"v1": 12, "v2": 8}, 0.9) | {"B": block(2, 8, 12, 2.0)}


def workspace() -> dict[str, np.ndarray]:
    """Four areas, two of them one assembly, around a hub, and the blocks from each of the three to the hub."""
    sizes = {"vision": 10, "hearing": 8, "memory": 12, "motor": 6}
    ends = {"vision": 10, "hearing": 8, "action": 18}
    blocks = {f"to_hub.{name}": block(10 + k, 16, size, 1.0) for k, (name, size) in enumerate(ends.items())}
    return modules(3, {**sizes, "hub": 16}, 0.8) | blocks | {"memory.to_motor": block(20, 6, 12, 0.2)}


def stacked() -> dict[str, np.ndarray]:
    """What ``torch.nn.RNN(5, 10, num_layers=3)`` stores, with weights that contract."""
    hidden, inputs = 10, 5
    found = {}
    for layer in range(3):
        found[f"rnn.weight_ih_l{layer}"] = block(30 + layer, hidden, inputs if layer == 0 else hidden, 1.0)
        found[f"rnn.weight_hh_l{layer}"] = modules(40 + layer, {"w": hidden}, 0.7 + 0.1 * layer)["w.W"]
        for side in ("ih", "hh"):
            found[f"rnn.bias_{side}_l{layer}"] = np.zeros(hidden, np.float32)
    return found


if __name__ == "__main__":
    for make in (two, workspace, stacked):
        print(write_weights(HERE / f"{make.__name__}.safetensors", make()))
