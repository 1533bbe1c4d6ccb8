"""Configurations fail early, by name, and say what was meant."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpt_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    config_from_dict,
    config_to_json,
    differences,
    flatten,
    load_config,
)
from wgpt_jax.errors import RequestError

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("[!a]*.py"))  # not the grids of wgpt ablate


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads_and_says_how_to_run_it(path):
    assert isinstance(load_config(path), Config)
    assert f"wgpt train configs/{path.name} " in path.read_text().split('"""')[1]


def test_overrides_are_typed(tmp_path):
    config = load_config(CONFIGS[0], ["--model.depth", "7", "--optimizer.learning-rate", "3e-4"])
    assert config.model.depth == 7
    assert config.optimizer.learning_rate == 3e-4


def test_a_mel_mix_is_given_by_pairs_and_its_heaviest_source_is_the_main_one():
    for words, main in (
        (["codec8", "0.5", "original", "0.5"], "codec8"),
        (["codec8", "1", "original", "1.5"], "original"),
    ):
        data = load_config(CONFIGS[0], ["--data.mel-mix", *words, "--data.context", "64"]).data
        assert data.mel_mix == dict(zip(words[::2], map(float, words[1::2]), strict=True))
        assert (data.main_mel, data.context) == (main, 64)
    assert (DataConfig().mel_mix, DataConfig().main_mel) == ({"original": 1.0}, "original")


@pytest.mark.parametrize("names", [("original", "codec8"), ("codec8", "original")])
def test_of_equal_weights_the_mel_that_generation_feeds_back_is_the_main_one(names):
    assert DataConfig(mel_mix=dict.fromkeys(names, 0.5)).main_mel == "codec8"


def test_help_says_how_to_mix(capsys):
    with pytest.raises(SystemExit):
        load_config(CONFIGS[0], ["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--data.mel-mix SOURCE WEIGHT [SOURCE WEIGHT ...]" in text
    mix = " ".join(f"{name} {weight}" for name, weight in load_config(CONFIGS[0]).data.mel_mix.items())
    assert f"(default: {mix})" in text


@pytest.mark.parametrize(
    "wrong",
    [
        ["--model.detph", "7"],
        ["--model.depth", "seven"],
        ["--model.fusion", "concta"],
        ["--data.mel-mix", "codec8"],
        ["--data.mel-mix", "codec8", "half"],
        ["--data.mel-mix", "codec8", "1", "codec8", "2"],
    ],
)
def test_wrong_override_exits_with_2(wrong, capsys):
    with pytest.raises(SystemExit) as error:
        load_config(CONFIGS[0], wrong)
    assert error.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_unknown_key_names_the_nearest(capsys):
    with pytest.raises(SystemExit):
        load_config(CONFIGS[0], ["--model.detph", "7"])
    assert "--model.depth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (
                f"from wgpt_jax.config import *\nconfig = Config(data=DataConfig(mel_mix={mix}))",
                f"data.mel_mix: {message}",
            )
            for mix, message in [
                ("{}", "is empty"),
                ("{'codec': 1.0}", "'codec' is no mel source; they are original, latent, centred, codec1, codec2"),
                ("{'codec0': 1.0}", "'codec0' is no mel source"),
                ("{'original': -1.0}", "the weight of original is -1.0, must be at least 0"),
                ("{'original': float('nan')}", "the weight of original is nan"),
                ("{'original': 0.0, 'codec1': 0}", "every weight is 0"),
                ("{'original': 'much'}", r"\{'original': 'much'\} is not of type dict\[str, float\]"),
                ("{1: 1.0}", r"\{1: 1.0\} is not of type"),
                ("3", "3 is not of type"),
            ]
        ),
        ("config = 3", "must define `config`"),
        ("x =", "failed: SyntaxError"),
        ("from wgpt_jax.config import *\nconfig = Config(model=ModelConfig(detph=3))", "did you mean depth"),
        ("from wgpt_jax.config import *\nconfig = Config(model=ModelConfig(depth='six'))", "model.depth: 'six' is not"),
        ("from wgpt_jax.config import *\nconfig = Config(model=ModelConfig(mlp='relu'))", "one of gelu, swiglu"),
        ("from wgpt_jax.config import *\nconfig = Config(model=ModelConfig(heads=7))", "model.heads: 7 heads"),
        ("from wgpt_jax.config import *\nconfig = Config(model=ModelConfig(dropout=1.0))", "model.dropout: is 1.0"),
        ("from wgpt_jax.config import *\nconfig = Config(model=ModelConfig(hidden=0))", "model.hidden: is 0"),
        (
            "from wgpt_jax.config import *\nconfig = Config(data=DataConfig(shuffle_seed=-1))",
            "data.shuffle_seed: is -1",
        ),
        ("from wgpt_jax.config import *\nconfig = Config(optimizer=OptimizerConfig(beta1=2.0))", "optimizer.beta1"),
    ],
)
def test_broken_file_is_one_sentence(tmp_path, text, message):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(RequestError, match=message):
        load_config(file)


def test_missing_file_names_the_nearest():
    with pytest.raises(RequestError, match=r"did you mean .*paper_hybrid\.py"):
        load_config(CONFIGS[0].parent / "paper_hybird.py")


@given(
    depth=st.integers(1, 99),
    rate=st.floats(1e-6, 1.0),
    inputs=st.sampled_from(["tokens", "hybrid"]),
    mix=st.dictionaries(st.sampled_from(["original", "codec1", "codec8"]), st.floats(0, 9), min_size=1),
)
def test_configurations_survive_json(depth, rate, inputs, mix):
    base = Config()
    config = dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, depth=depth, inputs=inputs),
        optimizer=dataclasses.replace(base.optimizer, learning_rate=rate),
        data=dataclasses.replace(base.data, mel_mix=mix),
    )
    copy = config_from_dict(json.loads(config_to_json(config)))
    assert copy == config
    assert copy.data.main_mel == config.data.main_mel, "the order survives"
    changed = {
        "model.depth": (4, depth), "model.inputs": ("hybrid", inputs), "optimizer.learning_rate": (1e-3, rate),
        "data.mel_mix": ({"original": 1.0}, mix),
    }  # fmt: skip
    assert differences(base, config) == {key: (old, new) for key, (old, new) in changed.items() if old != new}


def test_stored_configuration_of_another_version_names_the_key():
    fields = dataclasses.asdict(Config())
    fields["model"]["dpeth"] = 3
    with pytest.raises(RequestError, match=r"unknown key model\.dpeth; did you mean model\.depth"):
        config_from_dict(fields)


def test_every_key_has_a_help_text():
    """--help is read from the source: a key without a docstring would stand there naked."""
    text = (Path(__file__).parent.parent / "wgpt_jax/config.py").read_text()
    lines = text.splitlines()
    for key in flatten(Config()):
        name = key.split(".")[1]
        at = next(i for i, line in enumerate(lines) if line.startswith(f"    {name}: "))
        assert lines[at + 1].strip().startswith('"""'), key


def test_importing_training_and_evaluation_pulls_in_no_preparation_package():
    code = (
        "import sys, wgpt_jax; wgpt_jax.train, wgpt_jax.evaluate;"
        "print([m for m in ('torch', 'transformers', 'librosa', 'tensorflow', 'tensorflow_datasets', 'scipy.signal',"
        "'soundfile') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_model_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().depth = 3
