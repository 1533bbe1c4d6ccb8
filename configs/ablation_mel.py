"""How long the mel's window should be: the newest frame against resolution in frequency.

    python tools/prepare_audio.py CORPUS DATA/piano512 --codec bundled --mel-sources original --mel.n-fft 512
    wgpt ablate configs/ablation_mel.py --data piano=DATA/piano --data piano512=DATA/piano512 --workdir RUNS

A right-aligned Hann window of 1024 samples gives a tenth of its energy to the newest frame, one of 512 four fifths. The
mel's definition belongs to the data, so a data set stands for each; what is predicted is the same. Exploratory: one
point of the other grids' sweeps for all. What came out is in docs/LOG.md.
"""

from wgpt_jax.ablation.arms import chosen
from wgpt_jax.ablation.grid import SIZES, Ablation, Sweep
from wgpt_jax.config import Config, LoggingConfig, OptimizerConfig, TrainingConfig

ablation = Ablation(
    arms=chosen("c"),
    sizes=(SIZES["0.5m"],),
    sweep=Sweep(learning_rates=(1.2e-2,), embedding_stds=(3.333e-3,), steps=200),
    steps=600,
    batch=4,
    context=256,
    eval_every=150,
    base=Config(
        training=TrainingConfig(eval_windows=64),
        optimizer=OptimizerConfig(warmup=50),
        logging=LoggingConfig(tensorboard=False),
    ),
)
