"""A MoT as one first writes it, and as SLM-MoT is written: what tests and `train_step.py` compare earnest's with."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from earnest.data.batch import Batch
from earnest.data.masks import IGNORE
from earnest.models.mot import MoT
from earnest.models.mot.layers import MoTLayer


class Straightforward(nn.Module):
    """A MoT with the weights of `mot`: padded sequences, a boolean mask of each modality at every linear layer, one
    embedding and one output layer over the whole vocabulary, applied at every position.

    Having one output layer, it trains all of its rows. If `mot` has a softmax over its audio rows, it computes no other
    logits, as its user would.
    """

    def __init__(self, mot: MoT):
        super().__init__()
        own = copy.deepcopy(mot)
        self.backbone, self.layers, self.config = own.backbone, own.layers, own.config
        text_rows = own.text_rows or own.backbone.embed_tokens
        self.texts = len(text_rows.weight)
        self.embed = nn.Embedding.from_pretrained(torch.cat([own.backbone.embed_tokens.weight, own.embed_audio.weight]))
        self.lm_head = nn.Linear(*text_rows.weight.shape[::-1], bias=False)
        self.lm_head.weight = nn.Parameter(torch.cat([text_rows.weight, own.audio_rows.weight]).detach())
        own.backbone.embed_tokens = nn.Identity()

    def hidden(self, ids_BS: Tensor, is_audio_BS: Tensor, exists_BS: Tensor) -> Tensor:
        """(B, S, D). ids: a text id, or the text vocabulary's size plus the code's input row."""
        x_BSD = self.embed(ids_BS)
        positions = ids_BS.shape[1]
        cos_1SD, sin_1SD = self.backbone.rotary_emb(x_BSD, position_ids=torch.arange(positions)[None])
        causal_SS = torch.ones(positions, positions, dtype=torch.bool).tril()
        mask_B1SS = (causal_SS & exists_BS[:, None])[:, None]

        def routed(x_BSD: Tensor, text, audio) -> Tensor:
            text_ND, audio_ND = text(x_BSD[~is_audio_BS]), audio(x_BSD[is_audio_BS])
            out_BSD = text_ND.new_empty(*ids_BS.shape, text_ND.shape[-1])
            out_BSD[~is_audio_BS] = text_ND
            out_BSD[is_audio_BS] = audio_ND
            return out_BSD

        for layer, block in zip(self.layers, self.backbone.layers, strict=True):
            assert isinstance(layer, MoTLayer)
            text, audio = block.self_attn, layer.attention or block.self_attn
            normed_BSD = block.input_layernorm(x_BSD)
            q, k, v = (
                routed(normed_BSD, getattr(text, name), getattr(audio, name))
                .unflatten(-1, (-1, text.head_dim))
                .transpose(1, 2)
                for name in ("q_proj", "k_proj", "v_proj")
            )
            q, k = apply_rotary_pos_emb(q, k, cos_1SD, sin_1SD)
            k, v = (repeat_kv(heads, text.num_key_value_groups) for heads in (k, v))
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_B1SS).transpose(1, 2).flatten(2)
            x_BSD = x_BSD + routed(mixed, text.o_proj, audio.o_proj)
            x_BSD = x_BSD + routed(block.post_attention_layernorm(x_BSD), block.mlp, layer.expert)
        return self.backbone.norm(x_BSD)

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy of the audio's codes, for codebooks that share their rows."""
        ids_BS = torch.where(batch.is_audio_BS, self.texts + batch.tokens_BSC[..., 0], batch.text_BS)
        first_row = self.texts if self.config.output == "audio" else 0
        hidden_BSD = self.hidden(ids_BS, batch.is_audio_BS, batch.exists_BS)
        logits_BSV = F.linear(hidden_BSD, self.lm_head.weight[first_row:]).float()
        labels_BS = torch.where(batch.is_audio_BS & batch.exists_BS, ids_BS - first_row, IGNORE)
        first = batch.is_audio_BS.long().argmax(1)
        labels_BS[torch.arange(len(first)), first] = IGNORE  # the audio's BOS: given, not predicted
        return F.cross_entropy(
            logits_BSV[:, :-1].reshape(-1, logits_BSV.shape[-1]), labels_BS[:, 1:].reshape(-1), ignore_index=IGNORE
        )

    def gradients(self) -> dict[str, Tensor | None]:
        """By the names that the MoT has for the same tensors; its own text rows among them where it has some."""
        rows_VD = self.lm_head.weight.grad
        assert rows_VD is not None
        found = {f"layers.{name}": parameter.grad for name, parameter in self.layers.named_parameters()}
        return {"text_rows.weight": rows_VD[: self.texts], "audio_rows.weight": rows_VD[self.texts :], **found}
