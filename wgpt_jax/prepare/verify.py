"""Proof of causality on a prepared data set: stored mel and tokens against their own audio, disturbed."""

import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wgpt_jax.data.index import DataIndex, load_index
from wgpt_jax.errors import RequestError
from wgpt_jax.mel_sources import CENTRED
from wgpt_jax.prepare.causality import CausalityReport, verify_function
from wgpt_jax.prepare.codec import cached_codec
from wgpt_jax.prepare.convert import source_mel
from wgpt_jax.prepare.documents import read_document, read_samples
from wgpt_jax.prepare.items import Item, SourceError
from wgpt_jax.prepare.plan import read_plan
from wgpt_jax.prepare.request import PrepareArgs, source_of
from wgpt_jax.prepare.shards import load_report
from wgpt_jax.prepare.sources.opening import Source, moved_source
from wgpt_jax.prepare.storage import LocalStorage

_SHORTEST = 16  # frames


@dataclasses.dataclass(frozen=True)
class DrawnDocument:
    """A document of a prepared set, and where its two forms are."""

    name: str
    shard: Path
    source: Source
    item: Item
    index: DataIndex

    def samples(self, longest: int | None = None) -> np.ndarray:
        """Its audio, float32 [N] at the clock's rate, or the first ``longest`` samples of it.

        Raises:
            RequestError: if that cannot be read.
        """
        try:
            channel = self.index.options.get("channel")
            return read_samples(self.source, self.item, self.index.clock.sample_rate, channel, longest)
        except SourceError as error:
            raise RequestError(
                f"cannot read the audio {self.source.root}/{self.item.path} ({error}); say where it is: --audio-root"
            ) from error


def verify_prepared(
    data_dir: str | os.PathLike,
    documents: int = 3,
    audio_root: str | os.PathLike | None = None,
    seed: int = 0,
    seconds: float | None = None,
) -> Iterator[CausalityReport]:
    """Checks that stored frames up to t are what the audio gives when all after t is noise, bit for bit.

    Args:
        data_dir: folder of a prepared data set.
        documents: number of documents, drawn at random.
        audio_root: folder of the audio; the one in the index by default.
        seed: of the draw and the noise.
        seconds: how much of each document is checked, from its start; all by default.

    Yields:
        Reports of each document: one per mel source, and one of its tokens.

    Raises:
        RequestError: if the audio or the codec is not there, or the codec is another one.
    """
    index = load_index(data_dir)
    codec = cached_codec(index.codec.name, allow_noncausal=not index.codec.causal)
    if codec.fingerprint != index.codec.fingerprint:
        raise RequestError(f"codec {codec.name} is no longer the one {data_dir} was prepared with")
    frames = None if seconds is None else int(seconds * index.clock.frames_per_second)
    for document in draw_documents(data_dir, documents, audio_root, seed):
        samples, name = document.samples(None if frames is None else index.clock.samples(frames)), document.name
        mel, tokens = read_document(document.shard, name, frames)
        streams = {
            f"{source} mel": (functools.partial(source_mel, source, codec=codec, mel=index.mel), row)
            for source, row in zip(index.mel_sources, mel, strict=True)
        }
        streams["tokens"] = (functools.partial(codec.encode, codebooks=index.codebooks), tokens)
        for stream, (function, stored) in streams.items():
            report = verify_function(f"{stream} of {name}", function, samples, index.clock, seed=seed, expected=stored)
            yield dataclasses.replace(report, labelled=stream == f"{CENTRED} mel")


def draw_documents(
    data_dir: str | os.PathLike, documents: int, audio_root: str | os.PathLike | None = None, seed: int = 0
) -> list[DrawnDocument]:
    """Draws documents without repetition, none too short to tell a leak from silence.

    Args:
        data_dir: folder of a prepared data set.
        documents: number of documents; fewer if there are not as many.
        audio_root: folder of the audio; the one it was prepared from by default.
        seed: of the draw.

    Raises:
        RequestError: if no document is long enough, or the source of the audio is gone.
    """
    index, storage = load_index(data_dir), LocalStorage(str(data_dir))
    source = audio_source(storage, audio_root)
    found = []
    for shard in index.shards:
        report = load_report(Path(shard.file).stem, storage)
        for document in report.documents if report else ():
            if document.frames >= _SHORTEST:
                name, path = document.item.name, Path(data_dir) / shard.file
                found.append(DrawnDocument(name, path, source, document.item, index))
    if not found:
        raise RequestError(f"no document in {data_dir} has {_SHORTEST} frames: too short to prove anything on")
    drawn = np.random.default_rng(seed).permutation(len(found))[:documents]
    return [found[i] for i in sorted(drawn)]


def audio_source(storage: LocalStorage, root: str | os.PathLike | None = None) -> Source:
    """The source of the audio that a data set was prepared from.

    Args:
        storage: the data set.
        root: where the audio is now, if it has moved: what its paths are relative to.

    Raises:
        RequestError: if there is no plan to tell it, or it is not where it was.
    """
    plan = read_plan(storage)
    if plan is None:
        raise RequestError(f"{storage.root} has no plan.json, which says where its audio is")
    try:
        args = PrepareArgs.from_json(plan.arguments)
    except (TypeError, KeyError) as error:
        raise RequestError(f"{storage.root} was prepared by another version of this tool") from error
    if root is not None:
        return moved_source(args.source, str(root), domains=args.domains, resplit=args.resplit)
    try:
        return source_of(args)
    except RequestError as error:
        raise RequestError(f"{error}; if the audio has moved, say where it is: --audio-root") from error
