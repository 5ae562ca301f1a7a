"""Trainers whose scripts do not run here: `earnest.check` on the classes of their own repositories, by the loss
statements of their scripts. Packages that are missing stand in, as under ``earnest check SCRIPT``."""

import ast
import importlib
import importlib.metadata
import json
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.trainers import data
from benchmarks.trainers.scripts import qwen
from earnest.loops.stage.models import draw
from earnest.loops.stage.shrink import rescale_rope, shrink

Parts = tuple[nn.Module, Any, Callable[[nn.Module, Any], Any] | None]
IGNORE = -100


def at(*folders: Path) -> None:
    """Import from these folders first."""
    sys.path[:0] = [str(folder) for folder in folders]


def module(name: str, **members: Any) -> None:
    """A module of which a class needs no more than this."""
    made = types.ModuleType(name)
    made.__dict__.update(members)
    sys.modules[name] = made


def padded(rows: list[Tensor], fill: int) -> Tensor:
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)


def codes(codebooks: int, classes: int, clips: int = 3) -> list[Tensor]:
    """Of a few clips, (T, C) each."""
    return [torch.tensor(data.codes(clip, codebooks, classes)) for clip in range(clips)]


def lengths(rows: list[Tensor]) -> Tensor:
    return torch.tensor([len(row) for row in rows])


def pad_mask(lengths: Tensor, max_len: int = 0) -> Tensor:
    """icefall's: True where a row has ended."""
    return torch.arange(max(max_len, int(lengths.max())))[None] >= lengths[:, None]


def valle(sources: Path) -> Parts:
    """The autoregressive stage; its trainer divides by the frames, which changes no alignment."""
    at(sources / "valle")
    module("icefall")
    module("icefall.utils", make_pad_mask=pad_mask, str2bool=bool, AttributeDict=dict)
    torch.manual_seed(0)
    model = importlib.import_module("valle.models.valle").VALLE(32, 4, 2, prefix_mode=0, num_quantizers=1)
    clips, text = codes(8, 1024), [torch.randint(1, 100, (n,)) for n in (6, 8, 5)]
    batch = {"x": padded(text, 0), "x_lens": lengths(text), "y": padded(clips, 0), "y_lens": lengths(clips)}
    return model, batch, lambda model, batch: model(**batch, train_stage=1)[1]


def chatterbox(sources: Path, name: str, loss: str) -> Parts:
    """T3 with a Llama of two layers."""
    at(sources / name / "src")
    version = importlib.metadata.version
    importlib.metadata.version = lambda package: "0" if package == "chatterbox-tts" else version(package)
    configs = importlib.import_module("chatterbox.models.t3.llama_configs").LLAMA_CONFIGS["Llama_520M"]
    configs |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    configs |= {"num_key_value_heads": 4, "head_dim": 16}
    t3 = importlib.import_module("chatterbox.models.t3.t3")
    hp = importlib.import_module("chatterbox.models.t3.modules.t3_config").T3Config()
    cond = importlib.import_module("chatterbox.models.t3.modules.cond_enc").T3Cond
    torch.manual_seed(0)
    text = [F.pad(F.pad(torch.randint(1, 250, (n,)), (1, 0), value=255), (0, 1)) for n in (6, 8, 5)]
    speech = [F.pad(F.pad(one[:, 0], (1, 0), value=6561), (0, 1), value=6562) for one in codes(1, 6561)]
    batch = {"text_tokens": padded(text, 0), "text_token_lens": lengths(text)}
    batch |= {"speech_tokens": padded(speech, 6562), "speech_token_lens": lengths(speech)}
    batch |= {"speaker_emb": torch.randn(3, 256)}

    def of(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        given = {name: value for name, value in batch.items() if name != "speaker_emb"}
        return sum(  # type: ignore[no-any-return,return-value]
            getattr(model, loss)(t3_cond=cond(batch["speaker_emb"], emotion_adv=torch.full((3, 1, 1), 0.5)), **given)
        )

    return t3.T3(hp), batch, of


def tortoise(sources: Path) -> Parts:
    """UnifiedVoice of two layers; one mel code to 1024 samples."""
    at(sources / "dlas" / "codes")
    module("torch._six", inf=torch.inf)  # of older versions
    torch.manual_seed(0)
    voice = importlib.import_module("models.audio.tts.unified_voice2").UnifiedVoice
    model = voice(layers=2, model_dim=64, heads=2, checkpointing=False)
    clips, text = [one[:, 0] for one in codes(1, 8192)], [torch.randint(1, 250, (n,)) for n in (6, 8, 5)]
    batch = {"text_inputs": padded(text, 0), "text_lengths": lengths(text)}
    batch |= {"mel_codes": padded(clips, 0), "wav_lengths": 1024 * lengths(clips)}
    batch |= {"speech_conditioning_input": torch.randn(3, 80, 40)}
    return model, batch, lambda model, batch: sum(model(**batch)[:2])


def moshi(sources: Path) -> Parts:
    """moshi's language model with eight codebooks, by the two calls of the script's loss."""
    at(sources / "moshift")
    loss = importlib.import_module("finetune.loss").compute_loss_with_mask
    torch.manual_seed(0)
    settings: dict[str, Any] = {"dim": 64, "text_card": 100, "num_heads": 4, "num_layers": 2, "hidden_scale": 2}
    settings |= {"n_q": 8, "dep_q": 4, "card": 64, "delays": [0, 0, 1, 1, 1, 0, 1, 1, 1], "causal": True}
    depth = {"depformer_dim": 32, "depformer_num_heads": 4, "depformer_num_layers": 1, "context": 100}
    depth |= {"depformer_multi_linear": True, "positional_embedding": "rope"}
    model = importlib.import_module("moshi.models.lm").LMModel(**settings, **depth)
    batch = {"codes": torch.cat([torch.randint(4, 100, (3, 1, 20)), torch.randint(0, 64, (3, 8, 20))], 1)}

    def of(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        codes = batch["codes"]
        out, first = model(codes=codes), model.audio_offset
        text = loss(
            out.text_logits,
            codes[:, :first],
            out.text_mask,
            mode="text",
            text_padding_weight=0.5,
            text_padding_ids={model.text_padding_token_id, model.end_of_text_padding_id},
        )
        audio = codes[:, first : first + model.dep_q]
        return text + loss(out.logits, audio, out.mask, mode="audio", first_codebook_weight_multiplier=100.0)

    return model, batch, of


def audiocraft(sources: Path) -> Parts:
    """MusicGen's language model without conditions, by the solver's own cross-entropy."""
    at(sources / "audiocraft")
    lm = importlib.import_module("audiocraft.models.lm")
    patterns = importlib.import_module("audiocraft.modules.codebooks_patterns")
    conditioners = importlib.import_module("audiocraft.modules.conditioners")
    torch.manual_seed(0)
    nothing = conditioners.ConditionFuser({"sum": [], "prepend": [], "cross": [], "input_interpolate": []})
    model = lm.LMModel(
        patterns.DelayedPatternProvider(4, [0, 1, 2, 3]),
        conditioners.ConditioningProvider({}),
        nothing,
        n_q=4,
        card=64,
        dim=32,
        num_heads=4,
        num_layers=2,
        causal=True,
    )

    def of(model: Any, codes_BKT: Tensor) -> Tensor:
        attributes = [conditioners.ConditioningAttributes() for _ in codes_BKT]
        out = model.compute_predictions(codes_BKT, attributes)
        # as MusicGenSolver._compute_cross_entropy
        each = [F.cross_entropy(out.logits[:, k][out.mask[:, k]], codes_BKT[:, k][out.mask[:, k]]) for k in range(4)]
        return sum(each) / 4  # type: ignore[return-value]

    return model, torch.randint(0, 64, (3, 4, 20)), of


def slm_mot(sources: Path) -> Parts:
    """train_lambda.py calls the model with labels, which its forward does not take."""
    at(sources / "slmmot" / "llama3")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    importlib.import_module("fairscale.nn.model_parallel.initialize").initialize_model_parallel(1)
    llama = importlib.import_module("llama.model")
    arguments = llama.ModelArgs(dim=32, n_layers=1, n_heads=2, vocab_size=300, max_seq_len=64, max_batch_size=3)
    ids = torch.randint(0, 300, (3, 12))
    return (
        llama.Transformer(arguments),
        {"input_ids": ids, "labels": ids},
        lambda m, b: m(b["input_ids"], labels=b["labels"]),
    )


def higgs(sources: Path, name: str, shifted: bool) -> Parts:
    """boson's model (two layers, dual feed-forward), a batch of its own collator, and the trainer's own loss."""
    at(sources / name)
    classes = importlib.import_module("boson_multimodal.model.higgs_audio")
    text = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "pad_token_id": 0}
    config = classes.HiggsAudioConfig(
        text_config=text,
        audio_adapter_type="dual_ffn_fast_forward",
        audio_dual_ffn_layers=[0, 1],
        audio_ffn_hidden_size=64,
        audio_ffn_intermediate_size=128,
        audio_num_codebooks=8,
        audio_codebook_size=32,
        audio_stream_bos_id=32,
        audio_stream_eos_id=33,
        audio_in_token_idx=200,
        audio_out_token_idx=201,
        skip_audio_tower=True,
        encode_audio_in_tokens=True,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = classes.HiggsAudioModel(config)
    batch = _higgs_batch(reference=shifted)
    if shifted:
        return model, batch, None
    module("dataset", HiggsAudioDataset=None, create_collator=None)  # the repository's own does not hold them
    trainer = importlib.import_module("trainer")
    owner = object.__new__(next(one for one in vars(trainer).values() if hasattr(one, "_compute_dual_loss")))
    owner.__dict__ |= {"device": torch.device("cpu"), "global_step": 1, "local_rank": 1}
    owner.__dict__ |= {"args": SimpleNamespace(log_steps=10), "text_loss_fn": nn.CrossEntropyLoss()}
    owner.__dict__ |= {"audio_loss_fn": nn.CrossEntropyLoss()}

    def of(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        given = {name: value for name, value in batch.items() if name != "label_audio_ids"}
        loss: Tensor = owner._compute_dual_loss(model(**given), batch["label_ids"], batch["label_audio_ids"])[0]
        return loss

    return model, batch, of


def _higgs_batch(reference: bool) -> dict[str, Any]:
    importlib.import_module("boson_multimodal.data_collator.higgs_audio_collator")
    collator = sys.modules["boson_multimodal.data_collator.higgs_audio_collator"].HiggsAudioSampleCollator(
        whisper_processor=None,
        audio_in_token_id=200,
        audio_out_token_id=201,
        audio_stream_bos_id=32,
        audio_stream_eos_id=33,
        encode_whisper_embed=False,
        pad_token_id=0,
        return_audio_in_tokens=False,
        use_delay_pattern=False,
        round_to=8,
        audio_num_codebooks=8,
    )
    samples = importlib.import_module("boson_multimodal.dataset.chatml_dataset")
    rows = []
    for clip, codes_TC in enumerate(codes(8, 32)):
        text = torch.cat([torch.randint(1, 190, (6 + clip,)), torch.tensor([199, 201, 198])])
        labels = torch.where(text == 201, IGNORE, text)
        labels[: 6 + clip] = IGNORE
        given = {"input_ids": text, "label_ids": labels, "audio_ids_concat": codes_TC.T}
        given |= {"audio_ids_start": torch.tensor([0]), "audio_waveforms_concat": torch.zeros(1)}
        given |= {"audio_waveforms_start": torch.tensor([0]), "audio_sample_rate": torch.tensor([24000.0])}
        rows.append(samples.ChatMLDatasetSample(**given, audio_speaker_indices=torch.tensor([0])))
    made = vars(collator(rows))
    made["label_audio_ids"] = made["audio_out_ids"]
    del reference
    return {name: value for name, value in made.items() if value is not None and name in HIGGS_INPUTS}


def function(path: Path, name: str, owner: str | None = None, **names: Any) -> Any:
    """One function of a file whose imports are too many, or a method of one of its classes. names: what it uses."""
    body: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    if owner is not None:
        body = next(node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner)
    node = next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == name)
    space: dict[str, Any] = {"torch": torch, "F": F, **vars(typing), **names}
    exec(compile(ast.Module([node], []), str(path), "exec"), space)
    return space[name]


def swift(sources: Path, name: str) -> Parts:
    """Qwen3-TTS's classes under ms-swift's patch, collator and loss."""
    folder = sources / name / "swift"
    patch = function(folder / "model" / "models" / "qwen.py", "_patch_qwen3_tts_forward", MethodType=types.MethodType)
    template, owner = folder / "template" / "templates" / "qwen.py", "Qwen3TTSTemplate"
    collate, loss = (function(template, one, owner) for one in ("data_collator", "compute_sft_loss"))
    with tempfile.TemporaryDirectory() as written:
        qwen(Path(written))
        settings = json.loads((Path(written) / "Qwen3-TTS-12Hz-1.7B-Base" / "config.json").read_text())
    classes = importlib.import_module("qwen_tts.core.models")
    config = shrink(classes.Qwen3TTSConfig(**settings))
    rescale_rope(config)
    torch.manual_seed(0)
    model = classes.Qwen3TTSForConditionalGeneration(config).float()
    draw(model)
    patch(model)
    ids = {"_tts_pad_token_id": config.tts_pad_token_id, "_tts_bos_token_id": config.tts_bos_token_id}
    ids |= {
        "_tts_eos_token_id": config.tts_eos_token_id,
        "_codec_eos_token_id": config.talker_config.codec_eos_token_id,
    }
    for one in ("codec_nothink_id", "codec_think_bos_id", "codec_think_eos_id", "codec_pad_id", "codec_bos_id"):
        ids[f"_{one}"] = getattr(config.talker_config, one)
    owner_of = SimpleNamespace(**ids, target_speaker_embedding=None)
    mels = [torch.randn(1, 90, config.speaker_encoder_config.mel_dim) for _ in range(3)]
    rows = [
        {"input_ids": list(range(20, 27 + clip)), "tts_audio_codes": clips, "tts_ref_mel": mels[clip]}
        for clip, clips in enumerate(codes(16, 2048))
    ]
    batch = collate(owner_of, rows)
    del batch["labels"]
    return model, batch, lambda model, batch: loss(owner_of, model, batch)


def cosyvoice(sources: Path) -> Parts:
    """Qwen2LM around a Qwen2 of two layers, whole clips (not in blocks)."""
    at(sources / "cosy")
    llm = importlib.import_module("cosyvoice.llm.llm")
    transformers = importlib.import_module("transformers")
    small = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config = transformers.Qwen2Config(**small, num_attention_heads=4, num_key_value_heads=2)
    torch.manual_seed(0)
    llm.Qwen2ForCausalLM = SimpleNamespace(from_pretrained=lambda path: transformers.Qwen2ForCausalLM(config))  # type: ignore[attr-defined]
    model = llm.Qwen2LM(64, 64, 200, llm.Qwen2Encoder(""), sampling=None)
    text, speech = [torch.randint(3, 300, (n,)) for n in (6, 8, 9)], [one[:, 0] for one in codes(1, 200)]
    batch = {"text_token": padded(text, 0), "text_token_len": lengths(text)}
    batch |= {"speech_token": padded(speech, 0), "speech_token_len": lengths(speech)}
    return model, batch, lambda model, batch: model(batch, torch.device("cpu"))["loss"]


def parler(sources: Path) -> Parts:
    """The decoder alone; inputs, delays and the number of items as in the training script."""
    at(sources / "parler")
    classes = importlib.import_module("parler_tts")
    modeling = importlib.import_module("parler_tts.modeling_parler_tts")
    config = classes.ParlerTTSDecoderConfig(
        vocab_size=1090,
        num_hidden_layers=2,
        ffn_dim=64,
        num_attention_heads=2,
        hidden_size=32,
        pad_token_id=1024,
        eos_token_id=1024,
        bos_token_id=1025,
        dropout=0.0,
    )
    torch.manual_seed(0)
    model = classes.ParlerTTSForCausalLM(config)
    rows = []
    for one in codes(4, 1024):
        delayed, mask = modeling.build_delay_pattern_mask(
            torch.cat([torch.full((1, 4, 1), 1025), one.T[None]], -1), 1025, 1024, len(one) + 5, 4
        )
        del delayed
        rows.append(torch.where(mask == -1, 1024, mask)[:, 1:].T)
    labels = padded(rows, IGNORE)

    def of(model: nn.Module, labels: Tensor) -> Tensor:
        ids = modeling.shift_tokens_right(labels, 1024, 1025).transpose(1, 2)
        loss: Tensor = model(input_ids=ids, labels=labels, loss_reduction="sum").loss
        items = (labels.ne(1025) | labels.ne(-100) | labels.ne(1024)).sum((0, 1))[0]
        return loss / items

    return model, labels, of


HIGGS_INPUTS = ("input_ids", "attention_mask", "audio_out_ids", "audio_out_ids_start", "label_ids", "label_audio_ids")

CLASSES: dict[str, Callable[[Path], Parts]] = {
    "lifeiteng vall-e": valle,
    "chatterbox T3.loss (official)": lambda sources: chatterbox(sources, "chatterof", "loss"),
    "stlohrey chatterbox T3.loss_old": lambda sources: chatterbox(sources, "chatter", "loss_old"),
    "DL-Art-School tortoise UnifiedVoice2": tortoise,
    "kyutai moshi-finetune": moshi,
    "audiocraft MusicGen solver": audiocraft,
    "SLM-MoT train_lambda.py": slm_mot,
    "codeman911 higgs trainer.py": lambda sources: higgs(sources, "codeman", False),
    "ms-swift Qwen3-TTS before #9752": lambda sources: swift(sources, "swift0"),
    "ms-swift Qwen3-TTS after #9752": lambda sources: swift(sources, "swift1"),
    "NoyeArk cosyvoice-qinche-sft": cosyvoice,
    "parler-tts training": parler,
    "JimmyMa99 train-higgs-audio": lambda sources: higgs(sources, "jimmy", True),
}
