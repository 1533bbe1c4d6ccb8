"""Finds and loads a codec: the bundled one, a folder, or a name on the Hugging Face hub.

Importing this module is cheap; torch and transformers are imported when a codec is loaded.
"""

import functools
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from wgpt_jax.errors import RequestError

if TYPE_CHECKING:
    from transformers import EncodecModel

    from wgpt_jax.prepare.encodec import Codec

BUNDLED = "bundled"
BUNDLED_FOLDER = Path(__file__).parents[1] / "assets" / "codec"
_HINT = (
    "give --codec DIR (a folder with config.json and model.safetensors) or --codec bundled (the codec in the package)"
)
_REACH_SECONDS = 5.0


def load_codec(name: str, allow_noncausal: bool = False, device: str = "cpu") -> "Codec":
    """Loads a codec in float32.

    Args:
        name: ``bundled``, a folder that ``EncodecModel.from_pretrained`` reads, or a name on the hub.
        allow_noncausal: accept codecs that look ahead (the 32 and 48 kHz ENCODECs).
        device: torch device: ``cpu``, ``cuda:0``.

    Raises:
        RequestError: if it cannot be found or reached, is damaged or untrained, or looks ahead without permission.
    """
    from wgpt_jax.prepare.encodec import Codec

    known = BUNDLED if name == BUNDLED else str(Path(name).resolve()) if Path(name).is_dir() else name
    if device != "cpu":
        _make_deterministic()
    codec = Codec(_load_model(name), known, device)
    if not codec.causal and not allow_noncausal:
        raise RequestError(
            f"codec {name} ({codec.clock.sample_rate} Hz) is not causal: its tokens contain the future they should "
            "help to predict; use a 24 kHz ENCODEC, or pass --allow-noncausal to store them flagged as such"
        )
    return codec


cached_codec = functools.lru_cache(maxsize=1)(load_codec)
"""The same, loaded once per process."""


def _make_deterministic() -> None:
    """On a GPU: algorithms that give the same sums each time, in full float32."""
    import torch

    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def _load_model(name: str) -> "EncodecModel":
    folder = BUNDLED_FOLDER if name == BUNDLED else Path(name)
    if folder.is_dir():
        return _from_pretrained(str(folder), name)
    if name == BUNDLED:
        raise RequestError(f"the package has no bundled codec (no folder {folder}); give --codec DIR")
    if name.startswith((".", "/")) or name.count("/") != 1:
        raise RequestError(f"there is no codec folder {name}; {_HINT}")
    try:
        return _from_pretrained(name, name, local_files_only=True)
    except RequestError:
        _require_hub(name)
    return _from_pretrained(name, name)


def _require_hub(name: str) -> None:
    """Asks the hub once whether it is there: its own client would ask six times, for half a minute."""
    from huggingface_hub import constants

    try:
        if constants.HF_HUB_OFFLINE:
            raise urllib.error.URLError("HF_HUB_OFFLINE is set")
        request = urllib.request.Request(f"{constants.ENDPOINT}/{name}/resolve/main/config.json", method="HEAD")
        urllib.request.urlopen(request, timeout=_REACH_SECONDS).close()
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            raise RequestError(f"codec {name} is neither a folder nor a model on the hub; {_HINT}") from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise RequestError(f"the hub cannot be reached to load codec {name} ({reason}); {_HINT}") from error


def _from_pretrained(where: str, name: str, local_files_only: bool = False) -> "EncodecModel":
    """Loads with every parameter checked: transformers alone fills what is missing with random numbers."""
    import torch
    import transformers
    from safetensors import SafetensorError

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model, report = transformers.EncodecModel.from_pretrained(
            where, dtype=torch.float32, local_files_only=local_files_only, output_loading_info=True
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"cannot load codec {name} ({reason}); {_HINT}") from error
    weights = model.state_dict().values()
    if report["missing_keys"] or not all(value.isfinite().all() for value in weights):
        raise RequestError(f"the weights of codec {name} are damaged or of another model; {_HINT}")
    if not all(layer.codebook.embed.any() for layer in model.quantizer.layers):
        raise RequestError(f"codec {name} was never trained (its codebooks are zero); {_HINT}")
    return model
