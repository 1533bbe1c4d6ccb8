"""How long the mel's window should be: the newest frame against resolution in frequency.

    python tools/prepare_audio.py CORPUS DATA/piano512 --codec bundled --num-codebooks 4 --mel-sources original,codec4 --mel.n-fft 512
    wgpt ablate configs/ablation_mel.py --data piano=DATA/piano --data piano512=DATA/piano512 --workdir RUNS --only arm=c,size=0.5m
    wgpt ablate configs/ablation_mel.py --data piano=DATA/piano --data piano512=DATA/piano512 --workdir RUNS --only arm=hc,size=1m

A right-aligned Hann window of 1024 samples gives a tenth of its energy to the newest frame, one of 512 four fifths. The
mel's definition belongs to the data, so a data set stands for each; what is predicted is the same.
Exploratory: one point of the other grids' sweeps for all. What came out is in docs/LOG.md.
"""  # noqa: E501

from wgpt_jax.ablation.arms import chosen
from wgpt_jax.ablation.grid import SIZES, Ablation, Size, Sweep
from wgpt_jax.config import Config, LoggingConfig, OptimizerConfig, TrainingConfig

ablation = Ablation(
    arms=chosen("c", "hc"),
    sizes=(SIZES["0.5m"], Size("1m", 1_000_000, width=64, depth=4, heads=2, mel_width=48, depformer_width=48)),
    sweep=Sweep(learning_rates=(1.2e-2,), embedding_stds=(3.333e-3,), steps=400),
    steps=1000,
    batch=4,
    context=256,
    base=Config(
        training=TrainingConfig(eval_windows=64),
        optimizer=OptimizerConfig(warmup=50),
        logging=LoggingConfig(tensorboard=False),
    ),
)
