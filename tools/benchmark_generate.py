"""How fast generation is, in parts, beside transformers' generate of a decoder of the same size.

    python tools/benchmark_generate.py configs/paper_hybrid.py

All arms are timed in turn, round by round in one run, since machines are shared and noisy: read the ratios.
"""

import dataclasses
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from wgpt_jax.audio.encodec import decode
from wgpt_jax.audio.mel import MelConfig
from wgpt_jax.audio.mel_jax import windows_to_log_mel
from wgpt_jax.closed_loop.generator import CHUNK_FRAMES
from wgpt_jax.closed_loop.loop import Given, Loop, compile_chunk
from wgpt_jax.closed_loop.sampling import make_sampling
from wgpt_jax.command import run_command
from wgpt_jax.config import load_config
from wgpt_jax.model.decoder import Decoder
from wgpt_jax.prepare.codec import load_codec
from wgpt_jax.prepare.export import export_decoder
from wgpt_jax.training.state import count_parameters


@dataclasses.dataclass(frozen=True)
class BenchmarkArgs:
    """Times the closed loop, token mode and their parts with random weights, and transformers' generate beside them."""

    config: tyro.conf.Positional[Path] = Path("configs/paper_hybrid.py")
    """Configuration whose network is timed."""
    codec: str = "bundled"
    """Codec whose decoder is timed."""
    batches: tuple[int, ...] = (1, 8)
    """Samples generated at once."""
    seconds: float = 4.0
    """Audio that each arm generates per round."""
    rounds: int = 5
    """Rounds; the median is shown."""
    transformers: bool = True
    """Time transformers' generate as well."""
    json: bool = False
    """Print one JSON object and nothing else."""


def benchmark(args: BenchmarkArgs) -> None:
    """Prints a table per batch size."""
    config = load_config(args.config)
    codec = export_decoder(load_codec(args.codec), config.model.output_codebooks)
    with nnx.use_eager_sharding(False):
        graph, params = nnx.split(Decoder(config.model, nnx.Rngs(0)))
    chunks = max(1, round(args.seconds * codec.spec.clock.frames_per_second / CHUNK_FRAMES))
    rows = []
    for batch in args.batches:
        arms = _our_arms(config, graph, params, codec, batch, chunks)
        if args.transformers:
            from hf_generate import best_threads, hf_tokens_per_second

            m = config.model
            shape = (m.depth, m.width, m.heads, m.hidden, m.vocabulary, config.data.context, batch)
            threads = best_threads(*shape)
            arms[f"transformers generate, {threads} thread(s)"] = functools.partial(
                hf_tokens_per_second, *shape, chunks * CHUNK_FRAMES, threads
            )
        speeds = {name: [] for name in arms}
        for _ in range(args.rounds):
            for name, arm in arms.items():
                speeds[name].append(arm())
        rows.append({"batch": batch, **{name: statistics.median(values) for name, values in speeds.items()}})
    report = {
        "config": str(args.config),
        "parameters": count_parameters(params),
        "output_codebooks": config.model.output_codebooks,
        "frames_per_second_of_audio": codec.spec.clock.frames_per_second,
        "device": jax.devices()[0].device_kind,
        "frames_per_second": rows,
    }
    print(json.dumps(report) if args.json else _table(report))


def _our_arms(config, graph, params, codec, batch: int, chunks: int) -> dict[str, Callable[[], float]]:
    """Arms by name; each runs once and returns frames per second, all rows together."""
    hybrid = config.model.inputs == "hybrid"
    loops = {
        mode: Loop(
            graph=graph,
            codec=codec.spec,
            mel=MelConfig(bands=config.model.mel_bands),
            clock=codec.spec.clock,
            codebooks=config.model.output_codebooks,
            window=config.data.context,
            closed=mode == "closed loop",
            hears_prompt=False,
        )
        for mode in (["closed loop"] if hybrid else []) + ["token mode"]
    }
    given = Given(
        np.zeros(CHUNK_FRAMES, bool),
        np.zeros((CHUNK_FRAMES, config.model.output_codebooks), np.int32),
        np.zeros((CHUNK_FRAMES, codec.spec.clock.hop), np.float32),
    )
    sampling = make_sampling(vocabulary=config.model.vocabulary)
    seeds = np.arange(batch, dtype=np.uint32)

    def whole(loop: Loop) -> Callable[[], float]:
        start, chunk = compile_chunk(loop, params, codec.weights, batch, CHUNK_FRAMES)

        def run() -> float:
            state = start(params, codec.weights)
            jax.block_until_ready(state)
            begin = time.perf_counter()
            for _ in range(chunks):
                state, _, samples = chunk(params, codec.weights, state, given, sampling, seeds)
                np.asarray(samples)
            return batch * chunks * CHUNK_FRAMES / (time.perf_counter() - begin)

        return run

    arms = {name: whole(loop) for name, loop in loops.items()}
    if hybrid:
        loop = loops["closed loop"]
        arms["  codec alone"] = _scan(_codec_step(loop, codec.weights), loop, codec.weights, params, batch, chunks)
        arms["  mel alone"] = _scan(_mel_step(loop), loop, codec.weights, params, batch, chunks)
    return arms


def _codec_step(loop: Loop, weights):
    def step(state, _):
        samples, codec = decode(loop.codec, weights, state.tokens[:, None], state.codec)
        # The next token depends on the sound, so that nothing is computed ahead.
        tokens = state.tokens + (samples[:, :1] > 1e9)
        return state._replace(codec=codec, tokens=tokens), None

    return step


def _mel_step(loop: Loop):
    def step(state, _):
        window = jnp.concatenate([state.heard, jnp.tile(state.mel, (1, loop.clock.hop // state.mel.shape[1] + 1))], 1)
        window = window[:, : loop.mel.n_fft]
        mel = windows_to_log_mel(window, loop.mel, loop.clock.sample_rate)
        return state._replace(mel=mel, heard=window[:, loop.clock.hop :]), None

    return step


def _scan(step, loop: Loop, weights, params, batch: int, chunks: int) -> Callable[[], float]:
    run = jax.jit(lambda state: jax.lax.scan(step, state, None, length=CHUNK_FRAMES)[0])
    state = jax.jit(lambda: loop.start(params, weights, batch))()
    jax.block_until_ready(run(state))

    def timed() -> float:
        now = state
        begin = time.perf_counter()
        for _ in range(chunks):
            now = jax.block_until_ready(run(now))
        return batch * chunks * CHUNK_FRAMES / (time.perf_counter() - begin)

    return timed


def _table(report) -> str:
    rate = report["frames_per_second_of_audio"]
    lines = [
        f"{report['config']}: {report['parameters']:,} parameters, {report['output_codebooks']} codebook(s), "
        f"{report['device']}; median over rounds, arms in turn",
    ]
    for row in report["frames_per_second"]:
        lines += ["", f"batch {row['batch']:<36} {'frames/s':>9} {'ms/frame':>9} {'real time, each':>16}"]
        for name, speed in row.items():
            if name != "batch":
                each = speed / row["batch"]
                lines.append(f"{name:42} {speed:9.0f} {1000 / each:9.2f} {each / rate:15.2f}x")
        theirs = [speed for name, speed in row.items() if name.startswith("transformers")]
        if theirs:
            ratio = row["token mode"] / theirs[0]
            lines.append(f"token mode / transformers generate: {ratio:.2f}x (ours decodes the sound as well)")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(benchmark, BenchmarkArgs, prog="benchmark_generate"))
