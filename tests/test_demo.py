"""The demo, small, by its own command: everything is there, and the proof of causality can fail."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wgpt_jax import verify
from wgpt_jax.audio.mel import log_mel
from wgpt_jax.demo import compare, format_results
from wgpt_jax.prepare import convert
from wgpt_jax.prepare.causality import verify_function
from wgpt_jax.runs import read_run


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    line = [sys.executable, "-m", "wgpt_jax.cli", "demo", "--workdir", str(folder), "--minutes", "1.5", "--steps", "30"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_every_artefact_is_in_the_run_folder(work):
    folder, out = work
    sounds = ("from_nothing.wav", "from_nothing.png", "continued.wav", "continued.png")
    plots = ("losses.png", "mel_and_tokens.png", "tokens/loss.png")
    for name in (*plots, *sounds, "results.json", "hybrid/metrics.jsonl"):
        assert (folder / name).stat().st_size > 100, name
    assert soundfile.info(folder / "from_nothing.wav").duration == pytest.approx(5.0)
    assert "hybrid under codec1 - tokens:" in out and str(folder / "continued.wav") in out
    assert "nothing sees the future" in out
    for source in ("original", "codec1"):
        assert f"logits of {folder}/hybrid ({source} mel)" in out, "proved under every mel that it was trained on"
    assert "$ wgpt train configs/demo_hybrid.py" in out


def test_a_held_out_document_is_continued_by_five_seconds(work):
    folder, out = work
    words = shlex.split(next(line for line in out.splitlines() if line.startswith("$ ") and " --prompt " in line))
    prompt = Path(words[words.index("--prompt") + 1])
    (scored,) = (folder / "hybrid/evaluation").glob("validation-*-original.documents.jsonl")
    held_out = {json.loads(line)["document"] for line in scored.read_text().splitlines()}
    assert prompt.relative_to(folder / "audio").as_posix() in held_out
    own, rate = soundfile.read(prompt, dtype="float32")
    own = own[: min(2 * 75, len(own) // 320) * 320]
    samples, other_rate = soundfile.read(folder / "continued.wav", dtype="float32")
    assert rate == other_rate == 24000
    assert len(samples) == len(own) + 5 * 24000
    np.testing.assert_allclose(
        samples[: len(own) - 480], own[:-480], atol=2**-15, err_msg="all but the fade is its own"
    )


def test_both_models_are_scored_on_the_same_held_out_frames(work):
    results = json.loads((work[0] / "results.json").read_text())
    assert results["tokens"]["frames"] == results["hybrid"]["frames"] > 500
    assert results["tokens"]["mel_source"] == "none"
    assert results["hybrid"]["mel_source"] == "original"
    expected = results["hybrid"]["nll"] - results["tokens"]["nll"]
    assert results["difference"] == pytest.approx(expected, abs=1e-9)
    assert results["own_difference"] == pytest.approx(results["own"]["nll"] - results["tokens"]["nll"], abs=1e-9)
    assert results["own"]["nll"] != results["hybrid"]["nll"]
    ratio = results["tokens"]["parameters"] / results["hybrid"]["parameters"]
    assert ratio == pytest.approx(1, abs=0.03), "the twins are of one size"


def test_logits_are_causal_end_to_end_and_a_centred_mel_is_caught(work, monkeypatch):
    run = work[0] / "hybrid"
    info = read_run(run)
    samples = np.random.default_rng(0).normal(0, 0.1, info.clock.samples(40)).astype(np.float32)
    cuts = (0, 1, 20, 38)
    honest = verify_function("logits", verify.samples_to_logits(run, info, "original"), samples, info.clock, cuts)
    assert honest.passed, str(honest)

    def centred(x, config, clock):
        half = np.zeros(config.n_fft // 2, np.float32)
        return log_mel(np.concatenate([x, half]), config, clock)[1 : 1 + clock.frames(len(x))]

    monkeypatch.setattr(convert, "log_mel", centred)
    leaky = verify_function("logits", verify.samples_to_logits(run, info, "original"), samples, info.clock, cuts)
    assert leaky.leaks
    assert "sees the future" in str(leaky)


def test_logits_under_the_mel_of_decoded_tokens_are_causal_end_to_end(work):
    run = work[0] / "hybrid"
    info = read_run(run)
    samples = np.random.default_rng(0).normal(0, 0.1, info.clock.samples(40)).astype(np.float32)
    original, decoded = (verify.samples_to_logits(run, info, source) for source in ("original", "codec1"))
    report = verify_function("logits", decoded, samples, info.clock, (0, 1, 20, 38))
    assert report.passed, str(report)
    assert not np.array_equal(decoded(samples), original(samples))


@pytest.mark.parametrize(
    ("shift", "verdict"), [(-0.1, "the hybrid is better"), (0.1, "the token-only model is better"), (0.0, "level")]
)
def test_verdict_follows_the_numbers(shift, verdict):
    rng = np.random.default_rng(0)
    rows = {
        str(i): {
            "domain": "x", "frames": 100, "nll": 300 + rng.normal(), "top1": 10, "top10": 40, "unigram": 600.0,
            "bigram": 500.0,
        }
        for i in range(30)
    }  # fmt: skip
    moved = {name: {**row, "nll": row["nll"] + 100 * shift + rng.normal() / 100} for name, row in rows.items()}
    summary = {
        "documents": 30, "frames": 3000, "parameters": 5, "nll": 3.0, "nll_stderr": 0.1, "ppl": 20.0, "top1": 0.1,
        "top10": 0.4, "unigram_nll": 6.0, "bigram_nll": 5.0, "total_bits_per_second": 900.0,
    }  # fmt: skip
    results = {"tokens": (summary, rows), "hybrid": (summary, moved), "own": (summary, rows)}
    lines = format_results(compare(results)).splitlines()
    assert verdict in next(line for line in lines if line.startswith("hybrid under the original's mel"))
