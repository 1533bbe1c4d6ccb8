"""Prepares a folder of audio for training: ``python tools/prepare_audio.py IN OUT``."""

import sys

from wgpt_jax.prepare.main import main

if __name__ == "__main__":
    sys.exit(main())
