"""Four codebooks out: one step per frame against four, and what the mel of one's own sound adds.

    wgpt ablate configs/ablation_codebooks.py --data piano=DIR --data reading=DIR --workdir runs/ablation_codebooks

The data needs `tools/prepare_audio.py ... --num-codebooks 4 --mel-sources codec4` (other mels may be there). Total
bits per second over all four are compared. Arm i takes four steps per frame, so it has a quarter of the batch: equal
compute, fewer frames.

Arms g2c and hc have a causal convolution over the embeddings (`model.token_kernel`): a mel slice tells of several
frames at once, and what it wins by that a token-only model may have too. For the same reason the mel of h and hc has no
blocks or taps of its own.

All arms have 1 M parameters, most of them in the tables and heads of the codebooks. 6 to 8 runs of each arm's sweep
(400 steps each, on the first data set, for both) and per data set 18 final ones (1000 steps, three seeds): 90 to 99
million frames for two data sets. A final run takes 2,048,000 frames: of two hours of audio, about 430,000 in training,
that is 4.7 epochs (1.2 for arm i). On an accelerator, with ten hours (2.1 million frames in training): `--sizes 4m
--batch 16 --context 1024 --steps 1300 --tune-steps 520 --eval-every 130` is 10 epochs.
"""

from wgpt_jax.ablation.arms import chosen
from wgpt_jax.ablation.grid import Ablation, Size, Sweep
from wgpt_jax.config import Config, LoggingConfig, OptimizerConfig, TrainingConfig

ablation = Ablation(
    arms=chosen("g", "g2", "h", "g2c", "hc", "i"),
    sizes=(Size("1m", 1_000_000, width=64, depth=4, heads=2, mel_width=48, depformer_width=48),),
    sweep=Sweep(learning_rates=(6e-3, 1.2e-2), embedding_stds=(3.333e-3, 0.01), steps=400, extend=2),
    sweep_per_data=False,
    steps=1000,
    batch=8,
    context=256,
    base=Config(
        training=TrainingConfig(eval_windows=64),
        optimizer=OptimizerConfig(warmup=50),
        logging=LoggingConfig(tensorboard=False),
    ),
)
