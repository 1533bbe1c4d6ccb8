"""Proves that mel, tokens and logits never see the future: ``python tools/verify_causality.py --audio x.wav``."""

import sys

from wgpt_jax.verify import main

if __name__ == "__main__":
    sys.exit(main())
