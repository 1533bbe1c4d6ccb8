"""Makes a prepared data set of known entropy, without audio: what no model can beat, and a good one must reach."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from wgpt_jax.command import run_command
from wgpt_jax.data.index import SPLITS
from wgpt_jax.markov.dataset import NAME, MarkovSet, make_markov_set


@dataclass
class Args:
    """Make prepared data whose tokens come from a Markov source, to train and evaluate on as on any other.

    The entropy rate and the likelihood of every held-out document under the source are in index.json, under
    options.markov. The mel is a function of the tokens of its frame, so a model that beats the source has seen the
    future. There is no audio and no codec: what decodes sound does not work on it.
    """

    out: Annotated[Path, tyro.conf.Positional]
    """Folder to make."""
    asked: Annotated[MarkovSet, tyro.conf.arg(name="")] = field(default_factory=MarkovSet)


def main(args: Args) -> None:
    """Makes the set and says how much entropy it has."""
    index = make_markov_set(args.out, args.asked)
    known = index.options[NAME]
    frames = ", ".join(f"{split} {index.frames(split):,} frames" for split in SPLITS)
    print(f"{args.out}: {frames}; mel {', '.join(index.mel_sources)}")
    rates = ", ".join(f"{rate:.6f}" for rate in known["entropy_rates"])
    print(f"entropy rate {known['entropy_rate']:.6f} nats per frame (by codebook: {rates})")


if __name__ == "__main__":
    raise SystemExit(run_command(main, Args))
