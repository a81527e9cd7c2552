"""`pytest --certes` tests the policy; this tests a network that the code makes."""

import certes
from certes.weights import read_weights


def test_the_controller_forgets_its_start(certified):
    weights = read_weights("models/controller.safetensors")
    network = certes.RateNetwork(weights.matrix("rec.weight"), activation="tanh", step=0.2)
    certified(network, factor_at_most=0.97)
