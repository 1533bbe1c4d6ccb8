"""Training batches: random crops of audio files, resampled and augmented; a function of (seed, step) alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import soundfile
import soxr

from wgpt_jax.prepare.codec_training.augment import augment_segment, draw_speed
from wgpt_jax.prepare.codec_training.files import AudioFile


class Batches:
    """Batches of augmented crops, float32 ``[B, N]``; batch ``step`` is the same whenever it is asked for.

    Files are drawn by duration, in even shares of the domains, and prepared by threads ahead of their use.
    """

    def __init__(
        self, files: list[AudioFile], rate: int, batch: int, samples: int, seed: int, threads: int = 1
    ) -> None:
        self.files, self.rate, self.batch, self.samples, self.seed = files, rate, batch, samples, seed
        self.threads = threads
        domains = sorted({file.domain for file in files})
        self.by_domain = [[file for file in files if file.domain == domain] for domain in domains]
        self.weights = []
        for group in self.by_domain:
            seconds = np.array([file.seconds for file in group])
            self.weights.append(seconds / seconds.sum())

    def __getitem__(self, step: int) -> np.ndarray:
        """The batch of a step (any integer from 0)."""
        return np.stack([self._example(step, index) for index in range(self.batch)])

    def following(self, step: int) -> Iterator[np.ndarray]:
        """The batches of ``step``, ``step + 1``, ... without end, prepared ahead."""
        with ThreadPoolExecutor(self.threads) as pool:
            ahead = [pool.submit(self.__getitem__, step + i) for i in range(2 * self.threads)]
            try:
                while True:
                    step += 1
                    yield ahead.pop(0).result()
                    ahead.append(pool.submit(self.__getitem__, step + len(ahead)))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _example(self, step: int, index: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, step, index])
        domain = (index + step) % len(self.by_domain)
        segment = self._crop(domain, rng)
        if rng.random() < 0.1:
            # Two sounds at once: another clip, from any domain, some decibels below.
            other = self._crop(int(rng.integers(len(self.by_domain))), rng)
            level = np.sqrt(np.mean(segment**2) / (np.mean(other**2) + 1e-9)) * 10 ** (rng.uniform(-15, 0) / 20)
            segment = segment + other * min(level, 10.0)
        return augment_segment(segment, self.rate, rng)

    def _crop(self, domain: int, rng: np.random.Generator) -> np.ndarray:
        group, speed = self.by_domain[domain], draw_speed(rng)
        file = group[rng.choice(len(group), p=self.weights[domain])]
        # The file is read as if it had been recorded at `speed` times its rate: pitch and tempo change together.
        native = file.rate * speed
        wanted = int(np.ceil(self.samples * native / self.rate)) + 8
        start = int(rng.integers(0, max(1, file.samples - wanted)))
        audio, _ = soundfile.read(file.path, start=start, frames=wanted, dtype="float32", always_2d=True)
        mono = audio.mean(axis=1)
        if native != self.rate:
            mono = soxr.resample(mono, native, self.rate, quality="HQ")
        return np.pad(mono[: self.samples], (0, max(0, self.samples - len(mono)))).astype(np.float32)
