"""``python -m wgpt_jax.prepare IN OUT``."""

import sys

from wgpt_jax.prepare.main import main

if __name__ == "__main__":
    sys.exit(main())
