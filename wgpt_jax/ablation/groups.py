"""The parts of a network, as tables of parameters name them."""

from collections.abc import Mapping

GROUPS = ("embedding", "convolution", "mel branch", "fusion", "decoder blocks", "head", "depth transformer")
_PARTS = {
    "embedding": "embedding",
    "bos": "embedding",
    "token_norm": "embedding",
    "token_conv": "convolution",
    "mel_branch": "mel branch",
    "mel_norm": "mel branch",
    "fuse": "fusion",
    "stack": "decoder blocks",
    "head_norm": "head",
    "head": "head",
    "depformer": "depth transformer",
}


def by_group(parts: Mapping[str, int]) -> dict[str, int]:
    """Sums parameters by group.

    Args:
        parts: number of parameters by module, as ``run.json`` has it.
    """
    sums: dict[str, int] = {}
    for part, count in parts.items():
        sums[_group(part)] = sums.get(_group(part), 0) + count
    return {group: sums[group] for group in GROUPS if group in sums}


def _group(part: str) -> str:
    """Modules that only some patterns have are embeddings or heads by their names."""
    if part in _PARTS:
        return _PARTS[part]
    return "embedding" if "embed" in part else "head"
