"""Tiny checkpoints with random weights, in exactly the formats in which the real ones were released.

Higgs Audio v2 as transformers' conversion script writes it (bf16, 1026 ids a codebook, generation_config with its rule
against repetition, chat template, processor), with a vocabulary of 128,256 ids; the Higgs tokenizer of audio (24 kHz,
hop 960); Dia-1.6B-0626 (9 codebooks, its delays, generation_config, processor) and DAC at 44.1 kHz; Llama-3.2 and
MusicGen-small for MoT, EnCodec 32 kHz; Mimi, WavLM and Qwen3 for Amy. `released` makes each once per session."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
import transformers as hf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

ORDINARY = 128_000  # ids below the special ones, as in Llama 3
SPECIALS = {
    0: "<|begin_of_text|>", 1: "<|end_of_text|>", 6: "<|start_header_id|>", 7: "<|end_header_id|>", 8: "<|eom_id|>",
    9: "<|eot_id|>", 11: "<|AUDIO|>", 12: "<|audio_bos|>", 13: "<|audio_out_bos|>", 14: "<|reserved_special_token_6|>",
    15: "<|audio_eos|>", 16: "<|AUDIO_OUT|>", 17: "<|scene_desc_start|>", 18: "<|scene_desc_end|>",
}  # fmt: skip
# how Llama 3 cuts a text before it looks for merges
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = """\
{{- bos_token }}{% set turns = messages[1:] %}{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- set system = messages[0]['content'] %}{{- (system if system is string else system[0]['text']) | trim }}
{%- if turns and turns[0]['role'] == 'scene' %}{{- '\\n\\n<|scene_desc_start|>\\n' }}
{%- set scene = turns[0]['content'] %}{{- (scene if scene is string else scene[0]['text']) | trim }}
{{- '\\n<|scene_desc_end|>' }}{% set turns = turns[1:] %}{% endif %}{{- '<|eot_id|>' }}
{%- for turn in turns %}{{- '<|start_header_id|>' + turn['role'] + '<|end_header_id|>\\n\\n' }}
{%- if turn['role'] == 'assistant' %}{{- '<|audio_out_bos|><|AUDIO_OUT|><|audio_eos|>' }}
{%- elif turn['content'] is string %}{{- turn['content'] | trim }}
{%- else %}{% for part in turn['content'] %}
{%- if part['type'] == 'text' %}{{- part['text'] | trim }}{% endif %}{% endfor %}
{%- endif %}{{- '<|eot_id|>' }}{% endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n<|audio_out_bos|>' }}{% endif %}"""
DIA_DELAYS = [0, 8, 9, 10, 11, 12, 13, 14, 15]


def llama_tokenizer() -> hf.PreTrainedTokenizerFast:
    """A byte-pair tokenizer of 128,256 ids, cut into words and marked as Llama 3's. Its merges are made up: which of
    them a text uses does not matter here, but their number does, and that ".\\n\\n" is one id."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [*product(alphabet, alphabet)]
    pairs = ["".join(merge) for merge in merges]
    merges += [(pair, char) for pair, char in product(pairs, [alphabet[0], "Ċ"])]
    merges = list(dict.fromkeys(merges))[: ORDINARY - len(alphabet)]
    vocabulary = {token: at for at, token in enumerate([*alphabet, *("".join(merge) for merge in merges)])}
    names = [SPECIALS.get(at, f"<|reserved_special_token_{at + 1000}|>") for at in range(256)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIALS[0], eos_token=SPECIALS[9], pad_token=SPECIALS[1],
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def higgs_codec(path: Path) -> None:
    from earnest.codecs.pretrained import model_class

    acoustic = hf.DacConfig(
        encoder_hidden_size=2, decoder_hidden_size=32, downsampling_ratios=[8, 5, 4, 2, 3],
        upsampling_ratios=[8, 5, 4, 2, 3], hidden_size=8, codebook_dim=8, sampling_rate=16_000,
    )  # fmt: skip
    semantic = hf.HubertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, mask_time_prob=0.0,
        conv_dim=(8,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    config = hf.HiggsAudioV2TokenizerConfig(
        acoustic_model_config=acoustic, semantic_model_config=semantic, target_bandwidths=[0.5, 1, 1.5, 2]
    )
    model_class("HiggsAudioV2TokenizerModel")(config).save_pretrained(path)


def higgs(path: Path) -> None:
    tokenizer = llama_tokenizer()
    first = ORDINARY
    config = hf.HiggsAudioV2Config(
        codebook_size=1026, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, bos_token_id=1, eos_token_id=first + 9, pad_token_id=first + 1,
    )  # fmt: skip
    model = hf.HiggsAudioV2ForConditionalGeneration(config, use_text_head=True).to(torch.bfloat16)
    settings = dict(bos_token_id=1, eos_token_id=first + 9, pad_token_id=first + 1, use_text_head=True)
    model.generation_config.update(**settings, ras_win_len=7, ras_win_max_num_repeat=2)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    _processor(path, "HiggsAudioV2Processor", "higgs_codec", "HiggsAudioV2TokenizerModel", dict(
        feature_extractor_type="DacFeatureExtractor", feature_size=1, hop_length=1, padding_side="right",
        padding_value=0.0, return_attention_mask=True, sampling_rate=24_000,
    ))  # fmt: skip
    (path / "chat_template.jinja").write_text(TEMPLATE)


def dia(path: Path) -> None:
    heads = dict(num_attention_heads=4, num_key_value_heads=4, head_dim=8)
    cross = dict(cross_num_attention_heads=4, cross_num_key_value_heads=4, cross_head_dim=8, cross_hidden_size=16)
    config = hf.DiaConfig(
        encoder_config=dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, **heads),
        decoder_config=dict(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=8, **cross,
        ),
        delay_pattern=DIA_DELAYS,
    )  # fmt: skip
    model = hf.DiaForConditionalGeneration(config)
    model.generation_config.update(do_sample=True, guidance_scale=3.0, temperature=1.2, top_k=45, top_p=0.95)
    model.generation_config.update(max_length=3072, bos_token_id=1026, eos_token_id=1024, pad_token_id=1025)
    model.save_pretrained(path)
    hf.DiaTokenizer().save_pretrained(path)
    _processor(path, "DiaProcessor", "dac", "DacModel", dict(
        feature_extractor_type="DiaFeatureExtractor", feature_size=1, hop_length=512, padding_side="right",
        padding_value=0.0, return_attention_mask=True, sampling_rate=44_100,
    ))  # fmt: skip


def _processor(path: Path, processor: str, codec: str, codec_class: str, extractor: dict[str, object]) -> None:
    """As transformers writes it; the codec goes by its name, which on the Hub is that of another repository."""
    stored = {
        "audio_tokenizer": {
            "audio_tokenizer_class": codec_class,
            "audio_tokenizer_name_or_path": str(path.parent / codec),
        },
        "feature_extractor": extractor,
        "processor_class": processor,
    }
    (path / "processor_config.json").write_text(json.dumps(stored, indent=2))


def dac(path: Path) -> None:
    hf.DacModel(hf.DacConfig(
        encoder_hidden_size=2, decoder_hidden_size=16, downsampling_ratios=[2, 4, 8, 8], upsampling_ratios=[8, 8, 4, 2],
        n_codebooks=9, codebook_size=1024, codebook_dim=8, sampling_rate=44_100,
    )).save_pretrained(path)  # fmt: skip


def llama(path: Path) -> None:
    rope = dict(rope_type="llama3", rope_theta=500_000.0, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0)
    hf.LlamaForCausalLM(hf.LlamaConfig(
        vocab_size=128_256, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=131_072, bos_token_id=128_000,
        eos_token_id=128_001, rope_parameters={**rope, "original_max_position_embeddings": 8192},
    )).to(torch.bfloat16).save_pretrained(path)  # fmt: skip
    llama_tokenizer().save_pretrained(path)


def musicgen(path: Path) -> None:
    decoder = dict(num_codebooks=4, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2)
    text = dict(d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2, vocab_size=64)
    codec = dict(num_filters=2, num_lstm_layers=1, hidden_size=8, codebook_dim=8, codebook_size=16)
    config = hf.MusicgenConfig(
        text_encoder=dict(model_type="t5", **text), audio_encoder=dict(model_type="encodec", **codec), decoder=decoder
    )
    hf.MusicgenForConditionalGeneration(config).save_pretrained(path)


def encodec(path: Path) -> None:
    hf.EncodecModel(hf.EncodecConfig(
        sampling_rate=32_000, audio_channels=1, target_bandwidths=[2.2], upsampling_ratios=[8, 5, 4, 4], num_filters=2,
        num_lstm_layers=1, hidden_size=8, codebook_dim=8, codebook_size=2048, use_causal_conv=False, normalize=False,
        norm_type="weight_norm",
    )).save_pretrained(path)  # fmt: skip


def mimi(path: Path, semantic_codebooks: int = 1) -> None:
    model = hf.MimiModel(hf.MimiConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=8, num_filters=2, codebook_dim=8, vector_quantization_hidden_dimension=8, num_quantizers=32,
        upsample_groups=16, codebook_size=2048, num_semantic_quantizers=semantic_codebooks,
    ))  # fmt: skip
    for name, tensor in model.named_buffers():
        if name.endswith(("embed_sum", "initialized", "cluster_usage")):
            tensor.copy_(0.1 * torch.randn_like(tensor) if name.endswith("embed_sum") else torch.ones_like(tensor))
    model.save_pretrained(path)


def wavlm(path: Path) -> None:
    hf.WavLMModel(hf.WavLMConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )).save_pretrained(path)  # fmt: skip
    hf.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(path)


def qwen3(path: Path) -> None:
    hf.Qwen3ForCausalLM(hf.Qwen3Config(
        vocab_size=128_256, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8,
    )).to(torch.bfloat16).save_pretrained(path)  # fmt: skip
    llama_tokenizer().save_pretrained(path)


MADE: dict[str, Callable[[Path], None]] = {
    make.__name__: make for make in (higgs, higgs_codec, dia, dac, llama, musicgen, encodec, mimi, wavlm, qwen3)
}


class Released:
    """The checkpoints below one folder; each is made when it is first asked for."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, name: str) -> str:
        path = self.folder / name
        if not path.exists():
            torch.manual_seed(0)
            MADE[name](path)
        return str(path)
