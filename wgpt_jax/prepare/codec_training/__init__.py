"""Trains a small causal ENCODEC (``transformers.EncodecModel``) on a folder of audio, and scores any such codec."""
