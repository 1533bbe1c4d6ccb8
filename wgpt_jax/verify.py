"""Proof of the causality contract on audio, on prepared data and on a model; the command behind ``tools/``.

It stands above both halves of the package: the codec (torch) makes tokens of disturbed audio, the network (JAX) reads
them.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from wgpt_jax.audio.mel import MelConfig, log_mel
from wgpt_jax.command import run_command
from wgpt_jax.config import MeshConfig
from wgpt_jax.data.batch import Batch
from wgpt_jax.data.records import Record, Segment
from wgpt_jax.data.windows import cut_window, stack_windows
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.evaluation import load_network
from wgpt_jax.mel_sources import ORIGINAL
from wgpt_jax.parallel.mesh import make_mesh, sharded
from wgpt_jax.prepare.causality import CausalityReport, verify_function
from wgpt_jax.prepare.codec import cached_codec
from wgpt_jax.prepare.convert import source_mel
from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.reading.decode import decode_audio
from wgpt_jax.prepare.verify import draw_documents, verify_prepared
from wgpt_jax.runs import RunInfo, read_run


@dataclasses.dataclass(frozen=True)
class VerifyArgs:
    """Proves that nothing sees the future: noise after frame t leaves mel, tokens and logits up to t bit-identical.

    Give --audio, --data or --run, or several. A model is checked end to end, from samples to logits: on --audio if it
    is given, else on documents of --data, else on a random signal. Exit code 1 if anything leaks.
    """

    audio: Path | None = None
    """Audio file whose mel and tokens are checked."""
    data: Path | None = None
    """Prepared data whose stored mel and tokens are checked against their own audio, disturbed."""
    run: Path | None = None
    """Run folder whose model is checked."""
    codec: str = "bundled"
    """Codec of --audio, unless --run names one: a name on the hub, a folder, or bundled."""
    documents: int = 3
    """Documents of --data to check, drawn at random."""
    audio_root: Path | None = None
    """Folder of the audio that --data was made from, if it has moved."""
    seed: int = 0
    """Seed of the draw and of the noise."""


def verify(args: VerifyArgs) -> None:
    """Prints a line per check.

    Raises:
        RequestError: if there is nothing to check, or a file is not there.
        WorkError: if a check failed.
    """
    if not (args.audio or args.data or args.run):
        raise RequestError("nothing to check; give --audio FILE, --data DIR or --run DIR")
    failed = total = labelled = 0
    for report in _reports(args):
        print(report, flush=True)
        total += 1
        failed += not report.passed
        labelled += report.labelled
    if failed:
        raise WorkError(f"{failed} of {total} checks failed: the contract does not hold")
    but = f" but the {labelled} labelled leaks" if labelled else ""
    print(f"causal: {total} checks, nothing sees the future{but}")


def _reports(args: VerifyArgs) -> Iterator[CausalityReport]:
    info = read_run(args.run) if args.run else None
    if args.audio:
        codec = cached_codec(info.codec.name if info else args.codec, allow_noncausal=True)
        samples = _read(args.audio, codec.clock.sample_rate)
        mel = info.mel if info else MelConfig()
        for name, function in (("mel", lambda x: log_mel(x, mel, codec.clock)), ("tokens", codec.encode)):
            yield verify_function(f"{name} of {args.audio}", function, samples, codec.clock, seed=args.seed)
    if args.data:
        yield from verify_prepared(args.data, args.documents, args.audio_root, args.seed)
    if info:
        for source in _sources(info):
            logits = samples_to_logits(args.run, info, source)
            heard = "" if info.config.model.inputs == "tokens" else f" ({source} mel)"
            for name, samples in _signals(args, info):
                what = f"logits of {args.run}{heard} on {name}"
                yield verify_function(what, logits, samples, info.clock, seed=args.seed)


def _sources(info: RunInfo) -> list[str]:
    """The mels that a run was trained on; any one for a token-only model, which reads none."""
    if info.config.model.inputs == "tokens":
        return [ORIGINAL]
    return [source for source, weight in info.config.data.mel_mix.items() if weight > 0]


def _signals(args: VerifyArgs, info: RunInfo) -> Iterator[tuple[str, np.ndarray]]:
    """Signals of at most a context window for the end-to-end check."""
    rate, longest = info.clock.sample_rate, info.clock.samples(info.config.data.context)
    if args.audio:
        yield str(args.audio), _read(args.audio, rate)[:longest]
    elif args.data:
        for document in draw_documents(args.data, args.documents, args.audio_root, args.seed):
            yield document.name, document.samples()[:longest]
    else:
        rng = np.random.default_rng(args.seed)
        loudness = np.repeat(rng.uniform(0, 1, longest // info.clock.hop), info.clock.hop)
        yield "a random signal", (loudness * rng.normal(0, 0.1, longest)).astype(np.float32)


def samples_to_logits(run: Path, info: RunInfo, source: str) -> Callable[[np.ndarray], np.ndarray]:
    """The whole chain of a run as one function of the audio.

    Args:
        run: run folder.
        info: what it is.
        source: the mel that a hybrid reads; a codec's is of the decode of the tokens just encoded.

    Returns:
        a function float32 [N] -> float32 [n_frames - 1, K, V] as :func:`by_instant` has it; row t may depend on samples
        before (t + 1) * hop.
    """
    codec = cached_codec(info.codec.name, allow_noncausal=not info.codec.causal)
    if codec.fingerprint != info.codec.fingerprint:
        raise RequestError(f"codec {codec.name} is no longer the one {run} was trained with")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    graph, params, _ = load_network(run, info, mesh)

    @jax.jit
    def forward(params: nnx.State, batch: Batch) -> jax.Array:
        return nnx.merge(graph, params)(batch)

    def function(samples: np.ndarray) -> np.ndarray:
        tokens = codec.encode(samples, info.codebooks)
        mel = source_mel(source, samples, codec, info.mel, tokens)
        record = Record(tokens, mel[None], (Segment("signal", "", 0, len(tokens), 0),))
        with sharded(mesh):
            logits = np.asarray(forward(params, stack_windows([cut_window(record, 0, len(tokens))], 1)))[0]
        return by_instant(logits, info.config.model.pattern)

    return function


def by_instant(logits: np.ndarray, pattern: str) -> np.ndarray:
    """Sorts logits by the last frame that they may know of.

    The coarse token of frame t is given the frames before; a finer one the coarser ones of its own frame too, and where
    codebook k lags k frames (``delay``), the coarse token of k - 1 frames later.

    Args:
        logits: [n, K, V], by the frame whose tokens they predict.
        pattern: ``model.pattern``.

    Returns:
        [n - 1, K, V]; row t holds what is said by someone who knows the frames up to t; zero where that is nothing.
    """
    n, codebooks, _ = logits.shape
    frames = np.arange(n - 1)[:, None] + [1 - k if pattern == "delay" else int(k == 0) for k in range(codebooks)]
    known = logits[np.maximum(frames, 0), np.arange(codebooks)]
    return np.where((frames >= 0)[..., None], known, 0)


def _read(path: Path, sample_rate: int) -> np.ndarray:
    """An audio file, float32 [N]; RequestError if it cannot be read, with the flag that helps if it has moved."""
    try:
        return decode_audio(path, sample_rate)
    except SourceError as error:
        raise RequestError(f"cannot read {path} ({error}); if it has moved, say where it is: --audio-root") from error


def main() -> int:
    """Runs the command line and returns the exit code."""
    return run_command(verify, VerifyArgs, prog="verify_causality")


if __name__ == "__main__":
    sys.exit(main())
