"""Gathers the rows of wgpt ablate and of the tools that measure into one file, for tools/report.py."""

import sys

from wgpt_jax.command import run_command
from wgpt_jax.report.collect import CollectArgs, collect

if __name__ == "__main__":
    sys.exit(run_command(collect, CollectArgs, prog="collect_results.py"))
