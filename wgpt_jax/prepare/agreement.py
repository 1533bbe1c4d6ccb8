"""Stored tokens against those of documents encoded again one by one: what batches and devices have changed, if any."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from wgpt_jax.errors import WorkError
from wgpt_jax.prepare.codec import load_codec
from wgpt_jax.prepare.convert import Conversion
from wgpt_jax.prepare.documents import read_document, read_samples
from wgpt_jax.prepare.items import SourceError
from wgpt_jax.prepare.shards import ShardReport
from wgpt_jax.prepare.sources.opening import Source
from wgpt_jax.prepare.storage import Storage


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Tokens of some documents, stored and computed again."""

    documents: int
    frames: int
    equal: np.ndarray
    """int64 [K]: frames whose token is the same, per codebook."""


def token_agreement(
    reports: Sequence[ShardReport], storage: Storage, source: Source, conversion: Conversion, documents: int
) -> Agreement:
    """Encodes documents again, one by one, whole, on the CPU.

    Args:
        reports: of all shards.
        storage: where they are.
        source: of the audio.
        conversion: what the stored tokens are.
        documents: how many, drawn at random, always the same.

    Raises:
        WorkError: if the audio of one cannot be read any more.
    """
    codec = load_codec(conversion.codec, conversion.allow_noncausal)
    stored = [(report, document) for report in reports for document in report.documents]
    drawn = np.random.default_rng(0).permutation(len(stored))[:documents]
    frames, equal = 0, np.zeros(conversion.codebooks, np.int64)
    for number in sorted(drawn):
        report, document = stored[number]
        with storage.fetch(report.shard.file) as shard:
            _, tokens = read_document(shard, document.item.name)
        try:
            samples = read_samples(source, document.item, conversion.clock.sample_rate, conversion.channel)
        except SourceError as error:
            raise WorkError(f"cannot read {document.item.name} again ({error})") from error
        again = codec.encode(samples, conversion.codebooks)
        if len(again) != len(tokens):
            raise WorkError(f"{document.item.name} has changed since it was stored")
        frames += len(tokens)
        equal += (tokens == again).sum(axis=0)
    return Agreement(len(drawn), frames, equal)


def describe_agreement(agreement: Agreement) -> str:
    """One line, per codebook in percent."""

    def percents() -> Iterator[str]:
        for equal in agreement.equal:
            different = agreement.frames - equal
            yield "100 %" if not different else f"{100 * equal / agreement.frames:.3f} % ({different:,} differ)"

    return (
        f"verify  {agreement.documents:,} documents, {agreement.frames:,} frames encoded again on the CPU, one by one; "
        f"the same token, codebook by codebook: {', '.join(percents())}"
    )
