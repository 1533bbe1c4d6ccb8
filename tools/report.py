"""Writes docs/RESULTS.md and its figures from committed rows, or checks that they agree (--check)."""

import sys

from wgpt_jax.command import run_command
from wgpt_jax.report.main import ReportArgs, report

if __name__ == "__main__":
    sys.exit(run_command(report, ReportArgs, prog="report.py"))
