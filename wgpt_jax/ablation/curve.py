"""NLL as a function of the number of parameters, fitted to a few sizes, and its inverse."""

import dataclasses

import numpy as np

_SLOWEST, _FASTEST = 0.01, 4.0
"""Exponents c between which the best is sought; at the slow end the curve is a line in log N."""
_GOLDEN = (np.sqrt(5) - 1) / 2


@dataclasses.dataclass(frozen=True)
class Curves:
    """Fits to several samples of the same sizes: a + b * (N / scale)^-c each; a - b * log(N / scale) where c is 0.

    Where there is nothing to fit, a and b are nan.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    ends: np.ndarray
    """The largest size [R] that each is fitted to: that with the lowest NLL."""
    scale: float
    form: str
    """What was fitted to the first sample, in words."""

    def at(self, sizes: np.ndarray) -> np.ndarray:
        """NLL [R, sizes]."""
        logs = np.log(np.asarray(sizes, float) / self.scale)
        c = self.c[:, None]
        return self.a[:, None] + self.b[:, None] * np.where(c == 0, -logs, np.exp(-c * logs))

    def size_at(self, nll: np.ndarray) -> np.ndarray:
        """The size [R] at which each curve has an NLL [R].

        Infinite where none is large enough, nan where the curve does not fall.
        """
        excess = np.asarray(nll, float) - self.a
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            power = np.where(excess > 0, (excess / self.b) ** (-1 / np.where(self.c == 0, 1, self.c)), np.inf)
            size = self.scale * np.where(self.c == 0, np.exp(-excess / self.b), power)
        return np.where(self.b > 0, size, np.nan)


def fit_curves(sizes: np.ndarray, nll: np.ndarray) -> Curves:
    """Least squares of a + b * N^-c, or of a line in log N where there are fewer than four sizes.

    Each sample is fitted up to the size that has its lowest NLL: beyond it larger models are no better (trained too
    short, or with too little data), and a curve that can only fall would flatten out above the best of them. Where
    fewer than two sizes are left, nothing is fitted.

    Args:
        sizes: parameters [K], rising, K at least 2.
        nll: nats [R, K]: R samples of the same sizes.
    """
    sizes, nll = np.asarray(sizes, float), np.atleast_2d(nll)
    scale = float(np.exp(np.log(sizes).mean()))
    last = nll.argmin(axis=1)
    a, b, c = np.full((3, len(nll)), np.nan)
    c[:] = 0
    for count in np.unique(last[last > 0]) + 1:
        of = last + 1 == count
        a[of], b[of], c[of] = _fit(np.log(sizes[:count] / scale), nll[of, :count])
    return Curves(a, b, c, sizes[last], scale, _form(last[0] + 1, len(sizes)))


def matching_sizes(sizes: np.ndarray, nll: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, Curves]:
    """The size at which each of R samples has an NLL, and the curves fitted to them.

    It lies between two sizes that were trained: the smallest that is as good, and the one before it, which is not.
    The curve says where, within these two; if it does not fall, a straight line in log N between them does.

    Args:
        sizes: parameters [K], rising, K at least 2.
        nll: nats [R, K] of these sizes.
        wanted: nats [R].

    Returns:
        Sizes [R]: 0 where the smallest is as good already, infinite where none is as good.
    """
    curves, as_good = fit_curves(sizes, nll), nll <= wanted[:, None]
    found = np.where(as_good[:, 0], 0.0, np.inf)
    (inside,) = np.nonzero(as_good.any(axis=1) & ~as_good[:, 0])
    after = as_good[inside].argmax(axis=1)
    low, high = sizes[after - 1], sizes[after]
    worse, better = nll[inside, after - 1], nll[inside, after]
    line = low * (high / low) ** ((worse - wanted[inside]) / (worse - better))
    fitted = curves.size_at(wanted)[inside]
    found[inside] = np.clip(np.where(np.isnan(fitted), line, fitted), low, high)
    return found, curves


def _form(count: int, among: int) -> str:
    if count < 2:
        return "nothing: the smallest size has the lowest NLL"
    what = "a line in log N" if count < 4 else "a + b * N^-c"
    if count == among:
        return f"{what} through {count} sizes"
    return f"{what} through {count} of {among} sizes, up to that with the lowest NLL"


def _fit(logs: np.ndarray, nll: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a, b and c [R] of samples [R, K] at log(N / scale) [K].

    For a given c the best a and b are those of a straight line; c is found on a grid, then by golden section.
    """
    if len(logs) < 4:
        a, b, _ = _line(np.broadcast_to(-logs, nll.shape), nll)
        return a, b, np.zeros(len(nll))

    grid = np.geomspace(_SLOWEST, _FASTEST, 120)
    x = np.exp(-grid[:, None] * logs)
    x -= x.mean(axis=1, keepdims=True)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    best = np.abs((nll - nll.mean(axis=1, keepdims=True)) @ x.T).argmax(axis=1)  # the least error explains the most
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, len(grid) - 1)]

    def errors(c: np.ndarray) -> np.ndarray:
        return _line(np.exp(-c[:, None] * logs), nll)[2]

    for _ in range(30):  # to 1e-7 of c
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        lower = errors(left) < errors(right)
        low, high = np.where(lower, low, left), np.where(lower, right, high)
    c = (low + high) / 2
    a, b, _ = _line(np.exp(-c[:, None] * logs), nll)
    return a, b, c


def _line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intercepts, slopes and squared errors [R] of straight lines through points [R, K]."""
    dx, dy = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    slope = (dx * dy).sum(axis=1) / (dx * dx).sum(axis=1)
    return y.mean(axis=1) - slope * x.mean(axis=1), slope, ((dy - slope[:, None] * dx) ** 2).sum(axis=1)
