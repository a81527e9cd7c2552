"""Gated cells written once more, by themselves: plain formulas, derivatives by complex steps, balls of python-flint.

Nothing here is shared with the sources: the formulas are those of torch's documentation.
"""

from __future__ import annotations

import numpy as np

ORDER = {"gru": "rzn", "lstm": "ifgo"}


def sigmoid(s):
    return 1.0 / (1.0 + np.exp(-s))


def random_cell(random, kind, n, inputs, scale=1.0, bias=0.3, drive=0.5):
    """Weights as a dict of arrays W, U, b, c."""
    k = len(ORDER[kind])
    return {
        "W": drive * random.standard_normal((k * n, inputs)),
        "U": scale * random.standard_normal((k * n, n)) / np.sqrt(n),
        "b": bias * random.standard_normal(k * n),
        "c": bias * random.standard_normal(k * n),
    }


def step(kind, weights, state, given):
    """One step for one state (real or complex), shape (n,) or (2 n,)."""
    k = len(ORDER[kind])
    n = weights["U"].shape[1]
    hidden = state[-n:]
    a = (weights["W"] @ given + weights["b"]).reshape(k, n)
    y = (weights["U"] @ hidden + weights["c"]).reshape(k, n)
    if kind == "gru":
        r, z = sigmoid(a[0] + y[0]), sigmoid(a[1] + y[1])
        new = np.tanh(a[2] + r * y[2])
        return (1 - z) * new + z * hidden
    i, f, g, o = sigmoid(a[0] + y[0]), sigmoid(a[1] + y[1]), np.tanh(a[2] + y[2]), sigmoid(a[3] + y[3])
    inner = f * state[:n] + i * g
    return np.concatenate([inner, o * np.tanh(inner)])


def derivative(kind, weights, state, given):
    """The Jacobian by complex steps: exact to rounding, and no formula for it."""
    size, tiny = len(state), 1e-30
    columns = [step(kind, weights, state + 1j * tiny * np.eye(size)[j], given).imag / tiny for j in range(size)]
    return np.array(columns).T


def exact_step(kind, weights, state, given):
    """One step in ball arithmetic: lists of flint.arb."""
    from flint import arb

    k = len(ORDER[kind])
    n = weights["U"].shape[1]
    hidden = state[-n:]
    a = [sum((arb(float(w)) * u for w, u in zip(row, given, strict=True)), arb(float(b)))
         for row, b in zip(weights["W"], weights["b"], strict=True)]  # fmt: skip
    y = [sum((arb(float(w)) * h for w, h in zip(row, hidden, strict=True)), arb(float(c)))
         for row, c in zip(weights["U"], weights["c"], strict=True)]  # fmt: skip

    def gate(index):
        return [1 / (1 + (-(a[index * n + j] + y[index * n + j])).exp()) for j in range(n)]

    assert k == len(a) // n
    if kind == "gru":
        r, z = gate(0), gate(1)
        new = [(a[2 * n + j] + r[j] * y[2 * n + j]).tanh() for j in range(n)]
        return [(1 - z[j]) * new[j] + z[j] * hidden[j] for j in range(n)]
    i, f, o = gate(0), gate(1), gate(3)
    g = [(a[2 * n + j] + y[2 * n + j]).tanh() for j in range(n)]
    inner = [f[j] * state[j] + i[j] * g[j] for j in range(n)]
    return inner + [o[j] * inner[j].tanh() for j in range(n)]


def exact_derivative(kind, weights, state, given, digits=60):
    """The Jacobian at a point by differences in ball arithmetic at high precision, in floats."""
    import flint
    from flint import arb

    before = flint.ctx.prec
    flint.ctx.prec = 1200
    try:
        h = arb(10) ** -digits
        base, driven = [arb(x) for x in state], [arb(float(u)) for u in given]
        columns = []
        for j in range(len(base)):
            ahead, back = list(base), list(base)
            ahead[j], back[j] = ahead[j] + h, back[j] - h
            one, other = exact_step(kind, weights, ahead, driven), exact_step(kind, weights, back, driven)
            columns.append([float(((p - q) / (2 * h)).mid()) for p, q in zip(one, other, strict=True)])
        return np.array(columns).T
    finally:
        flint.ctx.prec = before


def exact_fixed_point(kind, weights, state, given, rounds=8):
    """A fixed point refined by Newton's method in ball arithmetic, and how far it still is from one, in floats."""
    import flint
    from flint import arb, arb_mat

    before = flint.ctx.prec
    flint.ctx.prec = 600
    try:
        driven, size = [arb(float(u)) for u in given], len(state)
        point = [arb(float(x)) for x in state]
        for _ in range(rounds):
            image = exact_step(kind, weights, point, driven)
            rest = arb_mat(size, 1, [p - q for p, q in zip(image, point, strict=True)])
            at = np.array([float(x.mid()) for x in point])
            J = derivative(kind, weights, at.astype(float), given)
            move = arb_mat(size, size, [arb(float(v)) for v in (np.eye(size) - J).ravel()]).inv() * rest
            point = [(p + move[k, 0]).mid() for k, p in enumerate(point)]
        image = exact_step(kind, weights, point, driven)
        return point, max(float(abs(p - q).mid()) for p, q in zip(image, point, strict=True))
    finally:
        flint.ctx.prec = before
