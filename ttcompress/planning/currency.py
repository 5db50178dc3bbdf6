"""What a unit of squared error costs in each weight, in one currency for all roles: `unit_costs`.

Squared errors of recurrent weights can be added up, but not to those of an embedding, whose values
may be a hundred times larger. A budget of the whole file needs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ttcompress.model.weights import Role


class Energy(NamedTuple):
    """A weight's role, and its squared norm in the unit of its spectra."""

    role: Role
    energy: float


SHARES: Mapping[Role, float] = {"embedding": 1.2, "recurrent": 1.0, "linear": 0.25, "matrix": 1.0}
"""What losing all of a role's weights costs, relatively, where nothing was measured.

A relative error of an embedding is one of the inputs, in all gates at once: it costs what the same
error in all recurrent weights together does. A linear layer is behind the state that all of them
made, and its own errors are not passed on. By the Fisher information the embeddings of a word
classifier, `charlm` and `highlighter` cost 2.1, 0.6 and 1.4 times as much as their recurrent
weights, and their linear layers (and `forecaster`'s) 0.13, 0.26, 0.26 and 0.39 times as much.
"""


def unit_costs(energies: Mapping[str, Energy], measured: Mapping[str, float]) -> dict[str, float]:
    """The cost of a unit of squared error, by weight.

    Args:
        energies: of every weight that shares the budget.
        measured: the costs of those whose sensitivity is known, in any one unit. The others are
            estimated by role, such that all estimates together are as large as what was measured.
    """
    total = sum(one.energy for one in energies.values())
    roles: dict[Role, float] = {}
    for role, energy in energies.values():
        roles[role] = roles.get(role, 0.0) + energy
    costs = {name: SHARES[role] / (roles[role] or 1.0) for name, (role, _) in energies.items()}
    known = measured.keys() & costs.keys()
    if estimated := sum(costs[name] * energies[name].energy for name in known):
        scale = sum(measured[name] * energies[name].energy for name in known) / estimated
        costs = {name: measured.get(name, scale * cost) for name, cost in costs.items()}
    # In the mean a unit costs 1, so that prices are what they are without a currency.
    mean = sum(costs[name] * one.energy for name, one in energies.items()) / (total or 1.0)
    return {name: cost / (mean or 1.0) for name, cost in costs.items()}
