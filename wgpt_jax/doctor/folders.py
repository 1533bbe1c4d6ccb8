"""The two folders of a training run: prepared data, and what is already in the run folder."""

import collections
import os
from pathlib import Path

from wgpt_jax.config import Config, differences
from wgpt_jax.data.index import SPLITS, DataIndex, load_index
from wgpt_jax.data.ngrams import load_ngrams
from wgpt_jax.data.pipeline import training_batches
from wgpt_jax.data.shards import open_split
from wgpt_jax.doctor.section import Section
from wgpt_jax.errors import RequestError, WgptError, WorkError
from wgpt_jax.runs import (
    RunFolder,
    check_data_is_readable,
    check_model_fits_data,
    check_same_run,
    read_run,
    training_data_fingerprint,
)


def examine_data(folder: Path, config: Config | None) -> tuple[Section, DataIndex | None]:
    """What prepared data holds, whether all of it is there, and whether a configuration can train on it.

    Shards are opened and their records counted; their contents are not read.
    """
    section = Section("data")
    try:
        index = load_index(folder)
    except RequestError as error:
        section.stop(error)
        return section, None
    codec, sources = index.codec, ", ".join(index.mel_sources)
    text = f"{codec.name} ({codec.fingerprint}), {codec.codebook_size:,} entries, {index.codebooks} codebooks stored"
    section.say("codec", text + ("" if codec.causal else ", not causal"), codec=codec.name, codebooks=index.codebooks)
    section.facts["fingerprint"] = index.fingerprint()
    if index.frames("train"):
        fingerprint = training_data_fingerprint(index)
        section.say("fingerprint", f"{fingerprint}, of the training shards", training_fingerprint=fingerprint)
    section.say("mel of", f"{sources}; {index.mel.bands} bands", mel_sources=list(index.mel_sources))
    section.facts["splits"] = {}
    for name in SPLITS:
        _say_split(section, index, name)
    _say_failures(section, index)
    _check_shards(section, folder, index)
    if config is not None:
        _check_fit(section, folder, index, config)
    return section, index


def _say_split(section: Section, index: DataIndex, name: str) -> None:
    shards = [shard for shard in index.shards if shard.split == name]
    frames, records = index.frames(name), sum(shard.records for shard in shards)
    hours = index.clock.seconds(frames) / 3600
    section.facts["splits"][name] = facts = {"documents": index.documents(name), "records": records, "frames": frames}
    facts |= {"hours": hours, "shards": len(shards)}
    text = f"{frames:,} frames, {hours:.2f} hours; {facts['documents']:,} documents, {records:,} records"
    section.say(name, f"{text}, {len(shards)} shard{'s' if len(shards) > 1 else ''}" if shards else "none")


def _say_failures(section: Section, index: DataIndex) -> None:
    reasons = collections.Counter(failure["reason"] for failure in index.failed)
    section.facts["failed_inputs"] = len(index.failed)
    if reasons:
        text = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
        section.say("failed", f"{len(index.failed)} inputs could not be used: {text}")


def _check_shards(section: Section, folder: Path, index: DataIndex) -> None:
    """Compares the number of records in each split's files with the index."""
    wrong = 0
    for name in SPLITS:
        shards = [shard for shard in index.shards if shard.split == name]
        if not shards:
            continue
        try:
            found, expected = len(open_split(folder, index, name)), sum(shard.records for shard in shards)
        except WorkError as error:
            section.stop(error)
            wrong += 1
            continue
        if found != expected:
            wrong += 1
            section.stop(
                f"the {name} shards in {folder} hold {found} records, the index says {expected}; run the same "
                "tools/prepare_audio.py command again, it makes damaged shards anew"
            )
    section.facts["shards_complete"] = not wrong
    if not wrong:
        section.say("shards", f"all {len(index.shards)} there, with as many records as the index says")


def _check_fit(section: Section, folder: Path, index: DataIndex, config: Config) -> None:
    """Everything that training asks of its data before it begins."""
    training, reads_mel = config.training, config.model.inputs == "hybrid"
    try:
        check_model_fits_data(config, index, folder)
        training_batches(folder, index, config.data, training.batch, reads_mel=reads_mel)
        if training.eval_every and index.frames("validation"):
            load_ngrams(folder)
    except WgptError as error:
        section.stop(error)
        return
    records = sum(shard.records for shard in index.split("train"))
    epochs = training.steps * training.batch / records
    times = training.steps * training.batch * config.data.context / index.frames("train")
    section.say(
        "training",
        f"{training.steps:,} steps make {epochs:.2f} epochs of a random window from each record; "
        f"{times:.2f} times as many frames as there are",
        epochs=epochs,
    )
    if training.eval_every and not index.frames("validation"):
        section.warn(
            f"the data in {folder} has no validation split, so nothing is evaluated; prepare it into another folder "
            "with a larger --validation fraction"
        )


def examine_run(folder: Path, config: Config | None, data: Path | None, index: DataIndex | None) -> Section:
    """What is in a run folder, and whether a configuration and data would continue it."""
    section, run = Section("run"), RunFolder(folder)
    if not run.info.exists():
        section.say("state", "new", exists=False)
        parent = next(path for path in (run.path, *run.path.parents) if path.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            section.stop(f"cannot write to the run folder {folder}: {parent} is no folder that this user may write to")
        return section
    try:
        info = read_run(folder)
    except RequestError as error:
        section.stop(error)
        return section
    # Orbax renames a folder to its step when it is complete.
    steps = sorted(int(path.name) for path in run.checkpoints.glob("*") if path.name.isdigit())
    last = f"step {steps[-1]:,} of {info.config.training.steps:,}" if steps else "none"
    section.say("last checkpoint", last, exists=True, checkpoints=steps)
    section.facts["versions"] = info.versions
    changed = differences(info.config, config) if config is not None else {}
    section.facts["differs"] = {key: list(values) for key, values in changed.items()}
    for key, (old, new) in changed.items():
        section.say("differs", f"{key}: {old} there, {new} here")
    try:
        if index is not None:
            check_data_is_readable(info, index, folder, data)
        if config is not None:
            fingerprint = training_data_fingerprint(index) if index else info.data_fingerprint
            for text in check_same_run(info, config, fingerprint, folder):
                section.warn(text)
            section.say("continues", "yes" if index else "yes, on the same data", continues=True)
    except RequestError as error:
        section.facts["continues"] = False
        section.stop(error)
    return section
