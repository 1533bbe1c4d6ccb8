"""A Markov source of tokens whose entropy rate and whose every likelihood are known exactly."""

import dataclasses
import hashlib

import numpy as np

_CHUNK = 4096  # rows of a table drawn at a time
_CONVERGED = 1e-13


@dataclasses.dataclass(frozen=True)
class Rows:
    """A sparse table of conditional probabilities: row s gives ``branching`` tokens a probability, all others none."""

    tokens: np.ndarray
    """int32 [states, branching], distinct within a row."""
    probabilities: np.ndarray
    """float64 [states, branching], summing to 1."""

    def draw(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A token after each state: int [n] -> int32 [n]."""
        above = rng.random((len(states), 1)) > self.probabilities[states].cumsum(axis=1)[:, :-1]
        return self.tokens[states, above.sum(axis=1)]

    def log_probability(self, states: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Log-probability of each token after its state: int [n], int [n] -> float64 [n]; -inf where it cannot come."""
        here = np.where(self.tokens[states] == tokens[:, None], self.probabilities[states], 0.0)
        return _log(here.sum(axis=1))

    def entropy(self, weights: np.ndarray) -> float:
        """Mean entropy of the rows in nats, under the distribution ``weights``, float64 [states]."""
        return float(-np.sum(weights[:, None] * self.probabilities * np.log(self.probabilities)))

    def push(self, weights: np.ndarray, size: int) -> np.ndarray:
        """Distribution of the next token, float64 [size], under a distribution of states."""
        flow = weights[:, None] * self.probabilities
        return np.bincount(self.tokens.ravel(), flow.ravel(), minlength=size)


@dataclasses.dataclass(frozen=True)
class MarkovSource:
    """A stationary source of frames of K tokens.

    The coarse token follows from the ``order`` coarse tokens before it; the token of every other codebook from that of
    the codebook below it in the same frame. So the finer ones say nothing of the future.
    """

    vocabulary: int
    """V, of every codebook."""
    order: int
    """1 or 2."""
    coarse: Rows
    """By state: the last ``order`` coarse tokens as the digits of a number to base V."""
    finer: tuple[Rows, ...]
    """Of codebooks 2 to K, by the token of the codebook below."""
    stationary: np.ndarray
    """float64 [V ** order], of the states."""

    @property
    def codebooks(self) -> int:
        """K."""
        return 1 + len(self.finer)

    @property
    def marginal(self) -> np.ndarray:
        """Stationary distribution of the coarse token, float64 [V]."""
        return self.stationary.reshape(-1, self.vocabulary).sum(axis=0)

    def entropy_rates(self) -> list[float]:
        """Nats per frame of each codebook given what came before it, K of them: their sum is the source's entropy rate.

        Of the coarse token by the stationary distribution of its states (Cover and Thomas, Elements of Information
        Theory, theorem 4.2.4).
        """
        rates, weights = [self.coarse.entropy(self.stationary)], self.marginal
        for rows in self.finer:
            rates.append(rows.entropy(weights))
            weights = rows.push(weights, self.vocabulary)
        return rates

    def start_entropies(self) -> list[float]:
        """Nats of the first ``order`` coarse tokens of a document, each given those before it."""
        whole = [_entropy(self.stationary), _entropy(self.marginal)][: self.order]
        return [whole[0]] if self.order == 1 else [whole[1], whole[0] - whole[1]]

    def nll(self, tokens: np.ndarray) -> np.ndarray:
        """Negative log-likelihood of each token given those before it in the piece and no others.

        Args:
            tokens: int [n, K], any frames of a document, in a row.

        Returns:
            float64 [n, K], nats. The first frames, whose state is not known, are those of a stationary source.
        """
        coarse = tokens[:, 0].astype(np.int64)
        out = np.empty(tokens.shape)
        out[:1, 0] = -_log(self.marginal[coarse[:1]])
        if self.order == 2 and len(coarse) > 1:
            pair = self.stationary[coarse[0] * self.vocabulary + coarse[1]]
            out[1, 0] = -_log(pair / self.marginal[coarse[0]])
        states = coarse[:-1] if self.order == 1 else coarse[:-2] * self.vocabulary + coarse[1:-1]
        out[self.order :, 0] = -self.coarse.log_probability(states, coarse[self.order :])
        for k, rows in enumerate(self.finer, start=1):
            out[:, k] = -rows.log_probability(tokens[:, k - 1], tokens[:, k])
        return out

    def sample(self, lengths: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Documents: int [D] (at least ``order``) -> int16 [length, K] each."""
        size, order = self.vocabulary, self.order
        state = rng.choice(len(self.stationary), len(lengths), p=self.stationary)
        coarse = np.zeros((len(lengths), max(lengths)), np.int64)
        for place in range(order):
            coarse[:, place] = state // size ** (order - 1 - place) % size
        for t in range(order, coarse.shape[1]):
            going = np.flatnonzero(lengths > t)
            coarse[going, t] = self.coarse.draw(state[going], rng)
            state[going] = (state[going] * size + coarse[going, t]) % size**order
        return [self._with_finer(row[:length], rng) for row, length in zip(coarse, lengths, strict=True)]

    def _with_finer(self, coarse: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        columns = [coarse]
        for rows in self.finer:
            columns.append(rows.draw(columns[-1], rng))
        return np.stack(columns, axis=1).astype(np.int16)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with any probability."""
        tables = [self.coarse, *self.finer]
        digest = hashlib.sha256(f"{self.vocabulary} {self.order}".encode())
        for array in (array for rows in tables for array in (rows.tokens, rows.probabilities)):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def draw_source(vocabulary: int, order: int, codebooks: int, branching: int, seed: int) -> MarkovSource:
    """Draws a source. Equal arguments give an equal one.

    After each state ``branching`` tokens can come, their probabilities uniform on the simplex (Dirichlet with all
    parameters 1), so the entropy rate is near ``1/2 + 1/3 + ... + 1/branching`` nats. Of the finer codebooks every
    second one (2, 4, ...) is drawn in the same way, the others are a fixed permutation of the one below: they add
    nothing to the entropy.
    """
    rng = np.random.default_rng([seed, 0])
    coarse = _draw_rows(vocabulary**order, vocabulary, branching, rng)
    finer = []
    for k in range(2, codebooks + 1):
        if k % 2 == 0:
            finer.append(_draw_rows(vocabulary, vocabulary, branching, rng))
        else:
            finer.append(Rows(rng.permutation(vocabulary).astype(np.int32)[:, None], np.ones((vocabulary, 1))))
    return MarkovSource(vocabulary, order, coarse, tuple(finer), _stationary(coarse, vocabulary))


def _draw_rows(states: int, vocabulary: int, branching: int, rng: np.random.Generator) -> Rows:
    tokens = np.empty((states, branching), np.int32)
    for first in range(0, states, _CHUNK):
        chunk = np.arange(first, min(first + _CHUNK, states))
        lots = rng.random((len(chunk), vocabulary))
        # The token after the last one can always come: every state leads to that cycle, so one class is recurrent.
        lots[np.arange(len(chunk)), (chunk + 1) % vocabulary] = -1
        tokens[chunk] = np.argsort(lots, axis=1)[:, :branching]
    probabilities = np.maximum(rng.dirichlet(np.ones(branching), states), 1e-6)
    return Rows(tokens, probabilities / probabilities.sum(axis=1, keepdims=True))


def _stationary(rows: Rows, vocabulary: int) -> np.ndarray:
    """Stationary distribution of the states, float64 [states], by power iteration of the lazy chain, which settles."""
    states = len(rows.tokens)
    following = (np.arange(states)[:, None] * vocabulary + rows.tokens) % states
    weights = np.full(states, 1 / states)
    while True:
        flow = weights[:, None] * rows.probabilities
        moved = np.bincount(following.ravel(), flow.ravel(), minlength=states)
        if np.abs(moved - weights).sum() < _CONVERGED:
            return moved / moved.sum()
        weights = (weights + moved) / 2


def _entropy(distribution: np.ndarray) -> float:
    occur = distribution[distribution > 0]
    return float(-np.sum(occur * np.log(occur)))


def _log(probabilities: np.ndarray) -> np.ndarray:
    """Natural logarithm, -inf of what cannot be."""
    with np.errstate(divide="ignore"):
        return np.log(probabilities)
