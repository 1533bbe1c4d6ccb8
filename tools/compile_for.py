"""Compiles a configuration for TPUs or GPUs that are not here: see ``python tools/compile_for.py --help``."""

import os
import sys

# Before JAX is imported. Devices that are here are left to whoever trains on them.
os.environ["JAX_PLATFORMS"] = "cpu"

from wgpt_jax.ahead.main import main

if __name__ == "__main__":
    sys.exit(main())
