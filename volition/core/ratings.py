"""Ratings of players from games between them: Bradley and Terry (1952), in Elo's units."""

import numpy as np
from numpy.typing import NDArray

ELO = 400 / np.log(10)  # Elo points of one unit of log odds


def expected(difference: float) -> float:
    """Share of points of the player whose rating is higher by `difference`, 1/(1 + 10^(−d/400))."""
    return float(1 / (1 + np.exp(-difference / ELO)))


def elo(points: NDArray, anchor: int = 0, prior: float = 1.0) -> tuple[NDArray, NDArray]:
    """Ratings `[P]` that make the results most probable, and their standard errors `[P]`; the anchor has 0 and 0.

    P(i beats j) = γ_i/(γ_i + γ_j), rating = 400·log₁₀ γ. points `[P, P]` is what each won of each, draws ½. `prior`
    drawn games are added to each pair that met, so that who won all has a rating too. Found by minorisation (Hunter
    2004, equation 3); errors from the inverse of the Fisher information. A ValueError if not all are connected.
    """
    points = np.asarray(points, float)
    met = (points + points.T) > 0
    points = points + prior / 2 * met
    games, won = points + points.T, points.sum(1)
    if not np.linalg.matrix_power(met + np.eye(len(points)), len(points)).all():
        raise ValueError("players must be connected by games")
    gamma = np.ones(len(points))
    for _ in range(100_000):
        new = won / (games / (gamma[:, None] + gamma)).sum(1)
        new /= new[anchor]
        done = np.abs(np.log(new / gamma)).max() < 1e-10
        gamma = new
        if done:
            break
    share = gamma[:, None] / (gamma[:, None] + gamma)
    weight = games * share * (1 - share)
    information = np.diag(weight.sum(1)) - weight
    rest = np.arange(len(points)) != anchor
    error = np.zeros(len(points))
    error[rest] = np.sqrt(np.diag(np.linalg.inv(information[np.ix_(rest, rest)])))
    return ELO * np.log(gamma), ELO * error


def agresti_coull(wins: float, games: int) -> tuple[float, float]:
    """95 % interval of the share of games won, in % (Agresti and Coull 1998)."""
    z = 1.96
    n = games + z * z
    p = (wins + z * z / 2) / n
    half = z * np.sqrt(p * (1 - p) / n)
    return 100 * max(0.0, p - half), 100 * min(1.0, p + half)
