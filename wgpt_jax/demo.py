"""``wgpt demo``: the whole way from audio to the comparison, by the very commands a user would type."""

import dataclasses
import json
import math
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wgpt_jax.data.index import DataIndex, load_index
from wgpt_jax.data.records import decode_record
from wgpt_jax.data.shards import open_split
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.plots import plot_losses, plot_mel_and_tokens
from wgpt_jax.runs import read_run
from wgpt_jax.scores import DocumentScores, SplitScores, format_stderr, paired_difference

CONFIGS = Path(__file__).parent.parent / "configs"
MODELS = ("tokens", "hybrid")
OWN_MEL = "codec1"
"""The mel of the decoded coarse tokens: a function of what the model has emitted, and what generation feeds back."""
_PLOT_SECONDS = 6.0
_PROMPT_SECONDS, _NEW_SECONDS = 2.0, 5.0
_FEWEST_DOCUMENTS = 5  # for a standard error worth the name


@dataclasses.dataclass(frozen=True)
class DemoArgs:
    """Everything end to end, offline, in minutes on a CPU.

    Makes a small corpus (or takes --audio), prepares it with the bundled codec, trains a token-only and a hybrid model
    of equal size on the same frames, evaluates both on held-out voices and pieces, proves causality, and generates
    audio with the hybrid in a closed loop. The same command again continues where it stopped.
    """

    workdir: Path = Path("runs/demo")
    """Folder for everything the demo makes."""
    audio: Path | None = None
    """Folder of your own audio instead of the made corpus; a tenth of its files is held out."""
    minutes: float = 30.0
    """Minutes of speech-like and of musical audio to make, each."""
    steps: int | None = None
    """Training steps per model; the demo configurations say how many by default."""


def demo(args: DemoArgs) -> None:
    """Runs the demo.

    Raises:
        RequestError: if the configurations are not beside the package, or a flag is wrong.
        WorkError: if one of the commands fails.
    """
    if not CONFIGS.is_dir():
        raise RequestError(f"the demo needs the configs/ folder of a clone (looked for {CONFIGS})")
    if args.audio is not None and not args.audio.is_dir():
        raise RequestError(f"there is no folder {args.audio}")
    if args.minutes <= 0 or (args.steps is not None and args.steps < 1):
        raise RequestError("--minutes and --steps must be positive")
    start = time.monotonic()
    work = args.workdir
    audio, data = args.audio or work / "audio", work / "data"
    steps = [] if args.steps is None else ["--training.steps", str(args.steps)]

    if args.audio is None:
        _heading("1/6  A small corpus: babble with formants and pitch, simple music")
        _tool("tools/make_corpus.py", audio, "--hours", f"{args.minutes / 60:g}", "--engine", "numpy")
        layout = ["--domains", "--split-by", "speaker"]
    else:
        _heading("1/6  Your audio")
        layout = []
    _heading("2/6  Preparation: aligned mel slices and ENCODEC tokens in shards")
    split = ["--validation", "0.1", "--test", "0", "--mel-sources", f"original,{OWN_MEL}"]
    _tool("tools/prepare_audio.py", audio, data, "--codec", "bundled", *layout, *split)
    index = load_index(data)
    if not index.documents("validation"):
        raise RequestError(f"one file is not enough: nothing of {audio} could be held out; give at least two")
    _heading("3/6  Training: the token-only model and the hybrid, on the same frames in the same order")
    for name in MODELS:
        _wgpt("train", CONFIGS / f"demo_{name}.py", "--data", data, "--workdir", work / name, *steps)
    _heading("4/6  Evaluation on held-out documents")
    for name in MODELS:
        _wgpt("evaluate", work / name, "--data", data)
    _heading("5/6  Proof of causality: noise after frame t changes nothing up to t")
    _tool("tools/verify_causality.py", "--data", data, "--run", work / "hybrid", "--documents", "2")
    _heading("6/6  Generation: the hybrid hears itself, from nothing and after a held-out prompt")
    sounds = {"from_nothing.wav": ["--seconds", f"{_NEW_SECONDS:g}"], "continued.wav": _prompt(audio, data, index)}
    for name, prompt in sounds.items():
        _wgpt("generate", work / "hybrid", "--out", work / name, "--top-p", "0.95", *prompt)

    results = {name: _read_evaluation(work / name, "none" if name == "tokens" else "original") for name in MODELS}
    comparison = compare(results | {"own": _read_evaluation(work / "hybrid", OWN_MEL)})
    (work / "results.json").write_text(json.dumps(comparison, indent=1) + "\n")
    _plot(work, data, index, comparison)
    print("\n" + format_results(comparison))
    print(f"\n{(time.monotonic() - start) / 60:.1f} minutes. Look at:")
    for name in ("losses.png", "mel_and_tokens.png", "results.json"):
        print(f"  {work / name}")
    print("Listen to (a spectrogram lies beside each):")
    for name in sounds:
        print(f"  {work / name}")
    print(_next_steps(work))


def compare(results: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]]) -> dict[str, Any]:
    """Puts evaluations on the same documents side by side.

    Args:
        results: the summary and the per-document rows of ``tokens``, of the ``hybrid`` under the original's mel, and of
            the same hybrid under the mel of the decode of what it emits (``own``).

    Returns:
        the summaries by the same names; ``difference`` (hybrid minus tokens, nats per token, paired by document) and
        ``own_difference`` (own minus tokens), each with its ``_stderr``.
    """
    scores = {}
    for name, (_, rows) in results.items():
        scores[name] = SplitScores(1)
        scores[name].documents = {document: DocumentScores(**row) for document, row in rows.items()}
    comparison: dict[str, Any] = {name: summary for name, (summary, _) in results.items()}
    for name, other in (("difference", "hybrid"), ("own_difference", "own")):
        mean, stderr = paired_difference(scores[other], scores["tokens"], total=True)
        comparison |= {name: mean, f"{name}_stderr": None if math.isnan(stderr) else stderr}
    return comparison


def format_results(comparison: dict[str, Any]) -> str:
    """The closing table and its verdicts."""
    tokens = comparison["tokens"]
    lines = [
        f"Held out: {tokens['documents']} documents, {tokens['frames']:,} tokens (75 per second)",
        "",
        f"{'model':9} {'mel':9} {'parameters':>10} {'NLL (nats)':>18} {'PPL':>7} {'top-1 %':>8} {'top-10 %':>9}",
    ]
    for name in ("unigram", "bigram"):
        nll = tokens[f"{name}_nll"]
        lines.append(f"{name:9} {'':9} {'':>10} {nll:8.3f} {'':9} {math.exp(nll):7.1f}")
    for name, mel, row in (
        ("tokens", "none", tokens),
        ("hybrid", "original", comparison["hybrid"]),
        ("hybrid", OWN_MEL, comparison["own"]),
    ):
        lines.append(
            f"{name:9} {mel:9} {row['parameters']:10,} {row['nll']:8.3f} +- {format_stderr(row['nll_stderr']):6} "
            f"{row['ppl']:7.1f} {100 * row['top1']:8.2f} {100 * row['top10']:9.2f}"
        )
    verdicts = {
        name: _verdict(comparison[name], comparison[f"{name}_stderr"], tokens["documents"])
        for name in ("difference", "own_difference")
    }
    return "\n".join(
        [
            *lines,
            "",
            f"hybrid under the original's mel - tokens: {verdicts['difference']}",
            "  conditional on side information: the original's mel holds more than the coarse tokens do",
            f"hybrid under {OWN_MEL} - tokens: {verdicts['own_difference']}",
            f"  no side information: {OWN_MEL} is the mel of the tokens already emitted, as generation feeds it back",
            "One seed, one small corpus: a demonstration, no result.",
        ]
    )


def _verdict(mean: float, stderr: float | None, documents: int) -> str:
    """A paired difference and what it says."""
    if documents < _FEWEST_DOCUMENTS:
        verdict = "too few documents to say which is better"
    elif abs(mean) <= 2 * stderr:
        verdict = "the two are level within two standard errors"
    else:
        verdict = f"the {'hybrid' if mean < 0 else 'token-only model'} is better"
    return f"{mean:+.4f} +- {format_stderr(stderr)} nats per token, paired by document: {verdict}"


def _next_steps(work: Path) -> str:
    return "\n".join(
        [
            "\nThe same on your own audio (any formats, rates, channels):",
            f"  python tools/prepare_audio.py YOUR_AUDIO OUT --codec bundled --mel-sources original,{OWN_MEL}",
            "  wgpt train configs/demo_hybrid.py --data OUT --workdir runs/mine",
            "  wgpt evaluate runs/mine --data OUT",
            "  wgpt generate runs/mine --prompt YOUR_AUDIO/x.wav --seconds 10 --out y.wav",
            f"TensorBoard: tensorboard --logdir {work}",
        ]
    )


def _read_evaluation(run: Path, mel: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The validation summary of a finished run under a mel source, and its per-document rows."""
    newest = max((run / "evaluation").glob("validation-*.json"), key=lambda path: path.stat().st_mtime)
    summary, steps = json.loads(newest.read_text()), read_run(run).config.training.steps
    if summary["step"] != steps:
        raise WorkError(f"{run} stopped at step {summary['step']} of {steps}; the same command continues the demo")
    documents = newest.with_name(newest.name.replace(f"-{summary['mel_source']}", f"-{mel}"))
    rows = {}
    for line in documents.with_suffix(".documents.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row.pop("document")] = row
    under = summary.get("by_mel_source", {}).get(mel, {})
    return {**summary, **under, "mel_source": mel}, rows


def _prompt(audio: Path, data: Path, index: DataIndex) -> list[object]:
    """Flags that continue the beginning of a held-out document, the longest of the first record."""
    segments = decode_record(open_split(data, index, "validation")[0]).segments
    chosen = max((segment for segment in segments if segment.start == 0), key=lambda segment: segment.length)
    lasts = min(_PROMPT_SECONDS, index.clock.seconds(chosen.length))
    flags = ["--prompt", audio / chosen.document, "--prompt-seconds", f"{lasts:g}"]
    return [*flags, "--seconds", f"{lasts + _NEW_SECONDS:g}"]


def _plot(work: Path, data: Path, index: DataIndex, comparison: dict[str, Any]) -> None:
    floors = {name: comparison["tokens"][f"{name}_nll"] for name in ("unigram", "bigram")}
    plot_losses({name: work / name / "metrics.jsonl" for name in MODELS}, work / "losses.png", floors)
    record = decode_record(open_split(data, index, "validation")[0])
    segment = record.segments[0]
    frames = slice(0, min(segment.length, int(_PLOT_SECONDS * index.clock.frames_per_second)))
    plot_mel_and_tokens(
        np.asarray(record.mel[0, frames]),
        np.asarray(record.tokens[frames]),
        index.clock.frames_per_second,
        segment.document,
        work / "mel_and_tokens.png",
    )


def _heading(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def _wgpt(*arguments: object) -> None:
    _call(["wgpt"], [sys.executable, "-m", "wgpt_jax.cli"], arguments)


def _tool(script: str, *arguments: object) -> None:
    _call(["python", script], [sys.executable, str(CONFIGS.parent / script)], arguments)


def _call(shown: Sequence[str], real: Sequence[str], arguments: Sequence[object]) -> None:
    """Shows a command as a user would type it, and runs it."""
    words = [str(argument) for argument in arguments]
    words_shown = [word.removeprefix(f"{CONFIGS.parent}/") for word in words]
    print(f"$ {shlex.join([*shown, *words_shown])}", flush=True)
    process = subprocess.Popen([*real, *words])
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # the command got the signal too: it saves, then ends
        raise
    if code == RequestError.exit_code:
        raise RequestError(f"{' '.join(shown)} refused what the demo asked for, see above")
    if code:
        raise WorkError(f"{' '.join(shown)} ended with exit code {code}; the same command continues the demo")
