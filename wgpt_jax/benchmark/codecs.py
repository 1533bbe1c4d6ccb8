"""A codec with the architecture of facebook/encodec_24khz that nothing needs to be downloaded for."""

from pathlib import Path

RANDOM = "random-24khz"
"""Its name on the command line."""


def write_random_codec(folder: Path) -> None:
    """Saves transformers' default ``EncodecModel``, which is that architecture, with random weights and codebooks.

    Its tokens mean nothing; the same products are made as with the real weights.
    """
    import torch
    from transformers import EncodecConfig, EncodecModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    model = EncodecModel(EncodecConfig())
    with torch.no_grad():
        for layer in model.quantizer.layers:
            layer.codebook.embed.normal_()
    model.save_pretrained(folder)
