"""Measures what a run generates: ``python tools/closed_loop_quality.py RUN --data DATA --out FOLDER``."""

import sys

from wgpt_jax.closed_loop.quality_command import QualityArgs, main
from wgpt_jax.command import run_command

if __name__ == "__main__":
    sys.exit(run_command(main, QualityArgs, prog="closed_loop_quality.py"))
