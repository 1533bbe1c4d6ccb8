"""Set-up and fixtures that several test files share."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["HF_HUB_OFFLINE"] = "1"
# Many tests compile the same step: share it between tests, worker processes and subprocesses of one run.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="wgpt-tests-xla-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# What a shell starts in the background ignores Ctrl-C, and so would all commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def codec_folder(tmp_path_factory) -> Path:
    """A tiny causal codec with random weights that pads with zeros, as the bundled one does."""
    from audio_samples import save_codec

    return save_codec(tmp_path_factory.mktemp("codec") / "constant", pad_mode="constant")


@pytest.fixture(scope="session")
def reflect_folder(tmp_path_factory) -> Path:
    """The same with reflection padding, as facebook/encodec_24khz has."""
    from audio_samples import save_codec

    return save_codec(tmp_path_factory.mktemp("codec") / "reflect", pad_mode="reflect")
