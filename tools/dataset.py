"""Verifies, describes, shows and repairs prepared data: ``python tools/dataset.py verify OUT``."""

import sys

from wgpt_jax.dataset.main import main

if __name__ == "__main__":
    sys.exit(main())
