"""A MoT continues prompts, one code at a time."""

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from earnest.data.batch import Prompt
from earnest.models.system import Continuation, Head, Round
from earnest.streams import Codebook, Stream

if TYPE_CHECKING:
    from earnest.models.mot.model import MoT


class MoTContinuation(Continuation):
    """A batch of sequences that is being continued: the key-value cache, which of its positions exist, and how many
    audio tokens there are."""

    def __init__(self, model: "MoT", prompts: Sequence[Prompt]):
        self.model = model
        self.cache = DynamicCache(config=model.config.llama)
        self.heads: Mapping[Stream, Head] = model.heads()
        self.tokens = 0
        lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        longest = int(lengths_B.max())
        self.exists_BS = torch.arange(longest, device=model.device)[None] >= longest - lengths_B[:, None]
        text_BS = pad_sequence([prompt.text_S for prompt in prompts], True, model.pad_id, "left").to(model.device)
        position_BS = (self.exists_BS.cumsum(1) - 1).clamp(min=0)
        model.backbone(text_BS, self.exists_BS, position_BS, past_key_values=self.cache, use_cache=True)

    def rounds(self, frame_BC: Tensor) -> Generator[Round, Tensor, None]:
        """One round per codebook. Only the last token of the frame is appended here: the others were, when they were
        drawn."""
        token_B1 = frame_BC[:, -1:]
        for c in range(self.model.codebooks):
            token_B1 = yield Round(slice(c, c + 1), self.advance(token_B1))

    def advance(self, token_B1: Tensor) -> Tensor:
        """Append one token (B, 1); returns the logits (B, 1, V) of the next: the codes and, if the model has one, the
        end, -inf between the codes of a frame."""
        model, backbone = self.model, self.model.backbone
        audio_B1D = model.embedded(token_B1, torch.full_like(token_B1, self.tokens))
        position_embeddings = backbone.rotary_emb(audio_B1D, position_ids=self.exists_BS.sum(1, keepdim=True))
        self.exists_BS = torch.cat([self.exists_BS, self.exists_BS.new_ones(len(token_B1), 1)], dim=1)
        mask_B11S = self.exists_BS[:, None, None]
        for layer, block in model.layer_pairs():
            audio_B1D = layer.advance(
                audio_B1D,
                block,
                position_embeddings=position_embeddings,
                attention_mask=mask_B11S,
                past_key_values=self.cache,
            )
        logits_B1V = self.heads[Codebook(self.tokens % model.codebooks)].logits(backbone.norm(audio_B1D))
        self.tokens += 1
        return F.pad(logits_B1V, (0, model.bos_id - logits_B1V.shape[-1]), value=-torch.inf)
