"""What a layer of a MoT has beside the backbone's own."""

from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer

from earnest.models.mot.config import MoTModelConfig
from earnest.models.operators import rms_normed
from earnest.models.packed import Route


class AudioExpert(nn.Module):
    """down → fc1 → activation → fc2 → up, without biases: MusicGen's feed-forward network between two adapters.

    In a fresh model `up` is zero (LoRA's start, arXiv:2106.09685 §4.1), so the audio expert adds nothing yet.
    """

    def __init__(self, width: int, expert_width: int, expert_ffn: int, activation: str):
        super().__init__()
        self.down = nn.Linear(width, expert_width, bias=False)
        self.fc1 = nn.Linear(expert_width, expert_ffn, bias=False)
        self.act: nn.Module = ACT2FN[activation]
        self.fc2 = nn.Linear(expert_ffn, expert_width, bias=False)
        self.up = nn.Linear(expert_width, width, bias=False)

    def forward(self, audio_MD: Tensor) -> Tensor:
        return self.up(self.fc2(self.act(self.fc1(self.down(audio_MD)))))


class MoTLayer(GradientCheckpointingLayer):
    """What a layer has beside the backbone's own: the audio expert, and the audio's attention if it is not shared."""

    def __init__(self, config: MoTModelConfig, index: int):
        super().__init__()
        self.attention = LlamaAttention(config.llama, index) if config.attention != "shared" else None
        self.expert = AudioExpert(
            config.llama.hidden_size, config.expert_width, config.expert_ffn, config.expert_activation
        )

    def forward(
        self, text_ND: Tensor, audio_MD: Tensor, block: LlamaDecoderLayer, route: Route
    ) -> tuple[Tensor, Tensor]:
        """Text and audio positions through one layer. Nothing is detached: gradients of later positions reach earlier
        ones through keys and values."""
        text_attention, audio_attention = block.self_attn, self.attention or block.self_attn
        text_in_ND, audio_in_MD = (
            rms_normed(text_ND, block.input_layernorm),
            rms_normed(audio_MD, block.input_layernorm),
        )
        q_PHD, k_PHD, v_PHD = (
            route.joined(
                getattr(text_attention, name)(text_in_ND), getattr(audio_attention, name)(audio_in_MD)
            ).unflatten(-1, (-1, text_attention.head_dim))
            for name in ("q_proj", "k_proj", "v_proj")
        )
        mixed_ND, mixed_MD = route.parted(route.attend(q_PHD, k_PHD, v_PHD).flatten(1))
        text_ND = text_ND + text_attention.o_proj(mixed_ND)
        audio_MD = audio_MD + audio_attention.o_proj(mixed_MD)
        text_ND = text_ND + block.mlp(rms_normed(text_ND, block.post_attention_layernorm))
        audio_MD = audio_MD + self.expert(rms_normed(audio_MD, block.post_attention_layernorm))
        return text_ND, audio_MD
