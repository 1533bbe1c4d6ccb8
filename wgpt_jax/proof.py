"""The proof of causality, made in a process of its own."""

import os
import subprocess
import sys
from typing import Literal


def proof_of_causality(of: Literal["--data", "--run"], folder: str | os.PathLike) -> str:
    """What ``tools/verify_causality.py`` says of prepared data or of a run, in its last line; it prints all of it.

    It runs on the CPU, since whoever asks may hold the accelerator's memory.
    """
    done = subprocess.run(
        [sys.executable, "-m", "wgpt_jax.verify", of, str(folder)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    print(done.stdout + done.stderr, flush=True)
    said = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return said[-1] if said else f"verify_causality ended with exit code {done.returncode}"
