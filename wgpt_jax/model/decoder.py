"""The hybrid decoder of WHISPER-GPT (arXiv 2412.11449, section 3) and its token-only form.

Letters: B batch, T time, M mel bands, K codebooks, D model, E mel-branch channels, V vocabulary.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from wgpt_jax.config import ModelConfig
from wgpt_jax.data.batch import Batch
from wgpt_jax.model.depformer import Depformer
from wgpt_jax.model.layers import BlockConfig, Einsum, RMSNorm, Stack
from wgpt_jax.model.patterns import PATTERNS
from wgpt_jax.parallel.mesh import platform, replicate


class MelBranch(nnx.Module):
    """Mel slices through a causal convolution and a few narrow causal blocks."""

    def __init__(self, config: ModelConfig, dtype, rngs):
        m, e = config.mel_bands, config.mel_width
        # Not zeros: a zero slice would leave the norm behind the branch nothing to divide, and its gradient explodes.
        self.null = nnx.Param(jax.random.normal(rngs.params(), (m,)), out_sharding=(None,))
        self.stem = Einsum(
            "bjtm,jme->bte",
            (config.mel_kernel, m, e),
            (None, None, "embed"),
            fan_in=config.mel_kernel * m,
            dtype=dtype,
            rngs=rngs,
        )
        blocks = BlockConfig.narrow(config, dtype, e, config.mel_heads, config.mel_depth)
        self.stack = Stack(blocks, rngs, config.remat) if config.mel_depth else None

    def __call__(self, mel, null, segment_ids, positions, dropout_key=None) -> jax.Array:
        """Slices seen by each position -> its features.

        Args:
            mel: float [B, T, M], the slice before each position.
            null: bool [B, T], where the learned null slice stands instead.
            segment_ids, positions: int32 [B, T].
            dropout_key: PRNG key, or None to drop nothing.

        Returns:
            [B, T, E].
        """
        mel = jnp.where(null[..., None], self.null[...], mel.astype(jnp.float32))
        x = self.stem(causal_taps(mel, positions, self.stem.kernel.shape[0]))
        return x if self.stack is None else self.stack(x, segment_ids, positions, dropout_key)


def causal_taps(x: jax.Array, positions: jax.Array, taps: int) -> jax.Array:
    """The last ``taps`` values of each position, newest last, zero before a segment's start.

    Args:
        x: [B, T, M].
        positions: int32 [B, T], index in the segment.
        taps: number of values.

    Returns:
        [B, taps, T, M].
    """
    rows = []
    for back in reversed(range(taps)):
        shifted = jnp.pad(x, ((0, 0), (back, 0), (0, 0)))[:, : x.shape[1]]
        rows.append(jnp.where((positions >= back)[..., None], shifted, 0.0))
    return jnp.stack(rows, axis=1)


class TokenConv(nnx.Module):
    """A causal convolution over the last embeddings, added to the newest: what a first block would have to learn to
    gather by attention is there from the first step (measured in docs/LOG.md). Not in the paper.
    """

    def __init__(self, config: ModelConfig, dtype, rngs):
        k, d, e = config.token_kernel, config.width, config.token_width
        self.conv = Einsum("bjtd,jde->bte", (k, d, e), (None, None, "embed"), fan_in=k * d, dtype=dtype, rngs=rngs)
        self.norm = RMSNorm(e)
        self.project = Einsum("bte,ed->btd", (e, d), (None, "embed"), fan_in=e, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, taps: jax.Array) -> jax.Array:
        """The newest embeddings [B, T, D] and the last ones [B, taps, T, D] -> [B, T, D]."""
        return x + self.project(self.norm(self.conv(taps)))


class Decoder(nnx.Module):
    """Predicts the tokens of every frame from the frames before it: the coarse one, and K - 1 finer ones if asked."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        dtype = compute_dtype(config)
        d, v, e = config.width, config.vocabulary, config.mel_width
        self.embedding = nnx.Param(
            config.embedding_std * jax.random.normal(rngs.params(), (v, d), jnp.float32),
            out_sharding=("vocab", "embed"),
        )
        if config.tables > 1:
            self.fine_embedding = nnx.Param(
                config.embedding_std * jax.random.normal(rngs.params(), (config.tables - 1, v, d), jnp.float32),
                out_sharding=(None, "vocab", "embed"),
            )
        self.bos = nnx.Param(config.embedding_std * jax.random.normal(rngs.params(), (d,)), out_sharding=(None,))
        self.token_norm = RMSNorm(d)
        if config.token_kernel > 1:
            self.token_conv = TokenConv(config, dtype, rngs)
        if config.inputs == "hybrid":
            self.mel_branch = MelBranch(config, dtype, rngs)
            self.mel_norm = RMSNorm(e)
            fused = d + e if config.fusion == "concat" else e
            self.fuse = Einsum("bte,ed->btd", (fused, d), (None, "embed"), fan_in=fused, dtype=dtype, rngs=rngs)
        blocks = BlockConfig(
            width=d,
            heads=config.heads,
            hidden=config.hidden,
            mlp=config.mlp,
            dropout=config.dropout,
            rope_base=config.rope_base,
            dtype=dtype,
            attention=config.attention,
            depth=config.depth,
        )
        self.stack = Stack(blocks, rngs, config.remat)
        self.head_norm = RMSNorm(d)
        # Logits straight in float32: rounded to bfloat16 they would tie, and the loss with them.
        self.head = Einsum(
            "btd,dv->btv",
            (d, v),
            ("embed", "vocab"),
            fan_in=d,
            gain=0.5,
            dtype=dtype,
            out_dtype=jnp.float32,
            rngs=rngs,
        )
        if config.has_depformer:
            self.depformer = Depformer(config, dtype, rngs)
        elif config.output_codebooks > 1:
            self.fine_head = Einsum(
                "btkd,kdv->btkv",
                (config.output_codebooks - 1, d, v),
                (None, "embed", "vocab"),
                fan_in=d,
                gain=0.5,
                dtype=dtype,
                out_dtype=jnp.float32,
                rngs=rngs,
            )

    def __call__(
        self, batch: Batch, *, null_mel: jax.Array | None = None, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Logits of every frame's tokens, each codebook's given the ones before it.

        Args:
            batch: windows of T frames; position t sees the frames before frame t of its document.
            null_mel: bool [B, T], where the null mel replaces the slice besides at document starts.
            dropout_key: PRNG key, or None to drop nothing (evaluation).

        Returns:
            float32 [B, T, K, V], K the configured output codebooks.
        """
        if self.config.pattern != "depth":
            states = self._pattern_states(batch, dropout_key)
            return jnp.concatenate([self.head(states[:, :, 0])[:, :, None], self.fine_head(states[:, :, 1:])], axis=2)
        hidden = self.hidden(batch, null_mel=null_mel, dropout_key=dropout_key)
        coarse = self.head(hidden)[:, :, None]
        if self.config.output_codebooks == 1:
            return coarse
        b, t, d = hidden.shape
        codes = batch.codes(self.config.output_codebooks).reshape(b * t, -1)
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, 2)
        fine = self.depformer(hidden.reshape(b * t, d), codes, key)
        return jnp.concatenate([coarse, fine.reshape(b, t, *fine.shape[1:])], axis=2)

    def hidden(
        self, batch: Batch, *, null_mel: jax.Array | None = None, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """The normalised state that predicts each frame, where one does (``pattern="depth"``).

        Args:
            batch: as :meth:`__call__`.
            null_mel: as :meth:`__call__`.
            dropout_key: PRNG key, or None to drop nothing (evaluation).

        Returns:
            [B, T, D].
        """
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        x = self.embed(self.tables(), batch.tokens[:, :-1, : self.config.tables], batch.starts)
        x = self._convolved(x, batch.positions)
        if self.config.inputs == "hybrid":
            null = batch.starts if null_mel is None else batch.starts | null_mel
            mel = self.mel_branch(batch.mel[:, :-1], null, batch.segment_ids, batch.positions, keys[0])
            x = self.merge(x, mel)
        x = self.stack(x.astype(compute_dtype(self.config)), batch.segment_ids, batch.positions, keys[1])
        return self.head_norm(x)

    def _pattern_states(self, batch: Batch, dropout_key: jax.Array | None) -> jax.Array:
        """The normalised state that predicts each token: [B, T, K, D]."""
        steps = PATTERNS[self.config.pattern](batch, self.config.output_codebooks)
        x = self.embed(self.tables(), steps.tokens, steps.starts, steps.known)
        x = self._convolved(x, steps.positions)
        x = self.stack(x.astype(compute_dtype(self.config)), steps.segment_ids, steps.positions, dropout_key)
        b, t, k = steps.predicts.shape
        return jnp.take_along_axis(self.head_norm(x), steps.predicts.reshape(b, t * k, 1), axis=1).reshape(b, t, k, -1)

    def tables(self) -> list[jax.Array]:
        """The token embeddings [V, D] of each codebook that is read."""
        # Tables split over devices would be gathered anew for every row: replicate them once instead.
        fine = replicate(self.fine_embedding[...]) if self.config.tables > 1 else ()
        return [replicate(self.embedding[...]), *fine]

    def embed(
        self, tables: Sequence[jax.Array], tokens: jax.Array, starts: jax.Array, known: jax.Array | None = None
    ) -> jax.Array:
        """Normalised sums of embeddings, BOS where a document starts.

        Args:
            tables: Kin of [V, D].
            tokens: int [B, T, Kin].
            starts: bool [B, T].
            known: bool [B, T, Kin], which tokens there are; all if not given.

        Returns:
            [B, T, D].
        """
        x = 0.0
        for k, table in enumerate(tables):
            row = table[tokens[..., k].astype(jnp.int32)]
            x += row if known is None else jnp.where(known[..., k, None], row, 0.0)
        return self.token_norm(jnp.where(starts[..., None], self.bos[...], x))

    def _convolved(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        kernel = self.config.token_kernel
        return self.token_conv(x, causal_taps(x, positions, kernel)) if kernel > 1 else x

    def merge(self, x: jax.Array, mel: jax.Array) -> jax.Array:
        """Fuses the two streams: [B, T, D], [B, T, E] -> [B, T, D]."""
        mel = self.mel_norm(mel)
        if self.config.fusion == "concat":
            return self.fuse(jnp.concatenate([x.astype(mel.dtype), mel], axis=-1))
        return x.astype(mel.dtype) + self.fuse(mel)


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    """The type activations are computed in: bfloat16 on accelerators unless the configuration says otherwise."""
    if config.dtype == "auto":
        return jnp.dtype(jnp.float32 if platform() == "cpu" else jnp.bfloat16)
    return jnp.dtype(config.dtype)
