"""WAV by the standard library, so that generating needs no more: as bytes, or a file that grows while sound is made."""

import contextlib
import io
import os
import wave
from pathlib import Path

import numpy as np

from wgpt_jax.errors import RequestError, WorkError

_LARGEST = 2**32 - 1 - 36  # bytes of samples: the header counts the file in 32 bits, with 36 bytes of its own


def encode_wav(samples: np.ndarray, sample_rate: int) -> bytes:
    """A whole mono PCM16 file.

    Args:
        samples: float [n], finite, full scale 1; clipped to [-1, 1) and rounded to the nearest of 2^16 steps.
        sample_rate: in Hz.
    """
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams(_parameters(sample_rate))
        writer.writeframes(_pcm16(samples))
    return file.getvalue()


class WavWriter:
    """Context manager that appends mono PCM16 samples; after each write the file is complete and can be played.

    An existing file is replaced.
    """

    def __init__(self, path: str | os.PathLike, sample_rate: int):
        """Makes the file, and its folder where that is missing.

        Args:
            path: of the WAV file.
            sample_rate: in Hz.

        Raises:
            RequestError: if the file cannot be written.
        """
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "wb")  # noqa: SIM115
            self._file.seek(0)  # the header is written again and again: a pipe will not do
        except OSError as error:
            raise RequestError(f"cannot write {self.path}: {error.strerror or error}") from error
        self._wave = wave.open(self._file, "wb")  # noqa: SIM115
        self._wave.setparams(_parameters(sample_rate))
        self._append(b"")  # the header: a file of no samples, until there are some

    def __enter__(self) -> "WavWriter":
        return self

    def __exit__(self, *failure) -> None:
        self.close()

    def close(self) -> None:
        """Ends the file; nothing is left to write."""
        # Each write was flushed: what fails here is what failed there, and was reported.
        with contextlib.suppress(OSError):
            self._wave.close()
        with contextlib.suppress(OSError):
            self._file.close()

    def write(self, samples: np.ndarray) -> None:
        """Appends samples.

        Args:
            samples: float [n], full scale 1; clipped to [-1, 1) and rounded to the nearest of 2^16 steps.

        Raises:
            WorkError: if a sample is not finite, the disk is full, or the file would outgrow its format (4 GiB);
                what was written before stays.
        """
        samples = np.asarray(samples, np.float32)
        if not np.isfinite(samples).all():
            at = (self._wave.tell() + np.isfinite(samples).argmin()) / self._wave.getframerate()
            raise WorkError(f"non-finite samples (NaN or infinity) at {at:.2f} seconds of {self.path}")
        data = _pcm16(samples)
        if 2 * self._wave.tell() + len(data) > _LARGEST:
            raise WorkError(f"{self.path} has reached 4 GiB, the most that a WAV file can hold")
        self._append(data)

    def _append(self, data: bytes) -> None:
        try:
            self._wave.writeframes(data)  # also puts the new length into the header
            self._file.flush()
        except OSError as error:
            self.close()
            raise WorkError(f"cannot write {self.path}: {error.strerror}") from error


def _parameters(sample_rate: int) -> tuple:
    return (1, 2, sample_rate, 0, "NONE", "not compressed")


def _pcm16(samples: np.ndarray) -> bytes:
    steps = np.minimum(np.rint(np.clip(samples, -1.0, 1.0) * 32768.0), 32767.0)
    return steps.astype(np.int16).tobytes()  # in native order: wave swaps where it must
