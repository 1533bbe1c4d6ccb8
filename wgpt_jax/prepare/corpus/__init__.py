"""Corpora made on this machine: speech-like and musical audio from nothing, piano from MIDI files, read books."""

from wgpt_jax.prepare.corpus.experiment import ExperimentSummary, make_experiment_corpus
from wgpt_jax.prepare.corpus.maker import CorpusSummary, make_corpus

__all__ = ["CorpusSummary", "ExperimentSummary", "make_corpus", "make_experiment_corpus"]
