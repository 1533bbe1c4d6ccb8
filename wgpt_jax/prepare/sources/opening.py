"""IN, as it stands on a command line, as a source."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.items import Item
from wgpt_jax.prepare.reading.sound import Sound
from wgpt_jax.prepare.sources.folder import open_folder
from wgpt_jax.prepare.sources.manifest import SUFFIXES, ManifestSource, open_manifest
from wgpt_jax.prepare.sources.tfds import TfdsSource, open_tfds

TFDS_PREFIX = "tfds:"


class Source(Protocol):
    """Audio to prepare. It can be sent to other processes."""

    @property
    def root(self) -> str:
        """What the items' paths are relative to."""

    def items(self) -> list[Item]:
        """All items, sorted by name; nothing is decoded.

        Raises:
            RequestError: if what lists them is damaged.
        """

    def describe(self, item: Item) -> Item:
        """The item with all that is known only when it is read: speaker, metadata.

        Raises:
            SourceError: if it cannot be read.
        """

    def open(self, item: Item) -> contextlib.AbstractContextManager[Sound]:
        """Opens an item's audio.

        Raises:
            SourceError: if it cannot be read.
        """


def open_source(
    spec: str,
    *,
    domains: bool = False,
    resplit: bool = False,
    data_dir: Path | None = None,
    tfds_splits: Sequence[str] | None = None,
) -> Source:
    """The source that IN names: ``tfds:NAME``, a manifest by its suffix, else a folder.

    Args:
        spec: IN.
        domains: whether the first folder below a folder names the domain.
        resplit: whether splits that the source gives are ignored.
        data_dir: where TFDS keeps its data sets.
        tfds_splits: which splits of a TFDS data set; all by default.

    Raises:
        RequestError: if there is no such source, or a flag does not go with it.
    """
    tfds, manifest = spec.startswith(TFDS_PREFIX), spec.lower().endswith(SUFFIXES)
    if not tfds and (data_dir is not None or tfds_splits is not None):
        raise RequestError(f"--data-dir and --tfds-splits go with tfds:NAME; IN is {spec}")
    if domains and (tfds or manifest):
        raise RequestError("--domains is about folders; a manifest has a domain column")
    if resplit and not (tfds or manifest):
        raise RequestError("--resplit is about splits that a manifest or TFDS gives; a folder gives none")
    if tfds:
        return open_tfds(spec, data_dir, tfds_splits, resplit)
    return open_manifest(spec, resplit) if manifest else open_folder(spec, domains)


def moved_source(spec: str, root: str, *, domains: bool, resplit: bool) -> Source:
    """The source that IN named, whose files are elsewhere now, to open items of before.

    Args:
        spec: IN, as it was.
        root: what the items' paths are relative to now.
        domains, resplit: as of :func:`open_source`.

    Raises:
        RequestError: if there is no folder ``root``.
    """
    folder = open_folder(root, domains)
    if spec.startswith(TFDS_PREFIX):
        return TfdsSource(folder.root, (), resplit)
    return ManifestSource(spec, folder.root, resplit) if spec.lower().endswith(SUFFIXES) else folder
