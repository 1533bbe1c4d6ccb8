"""A corpus out of nothing: speech-like and musical audio made on this machine, to try things out and to train on."""

from wgpt_jax.prepare.corpus.maker import CorpusSummary, make_corpus

__all__ = ["CorpusSummary", "make_corpus"]
