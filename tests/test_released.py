"""The whole recipes on tiny checkpoints in exactly the released formats: layouts, precision, every command, and what
comes out."""

import copy
import json
from collections import Counter

import pytest
import torch
from tokenizers import Tokenizer
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from earnest.data.chatml import load_conversations
from earnest.data.masks import IGNORE
from earnest.models import load_model
from earnest.training.precision import train_in_float32

TEXT = "The quick brown fox jumps over the lazy dog, and sleeps."


@pytest.fixture(scope="module")
def higgs(released):
    return load_model(released("higgs"))


def random_codes(codebooks: int = 8, frames: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 1024, (codebooks, frames), generator=torch.Generator().manual_seed(seed))


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_clip_asks_the_tokenizer_of_128256_ids_once(higgs, monkeypatch):
    """With `get_vocab()` a clip took 0.2 s, and no test with a small vocabulary saw it."""
    calls = Counter[str]()
    real = Tokenizer.encode

    class Counted:
        def __getattr__(self, name):
            return getattr(backend, name)

        def __setattr__(self, name, value):
            setattr(backend, name, value)

        def encode(self, *args, **kwargs):
            calls["encode"] += 1
            return real(backend, *args, **kwargs)

        def get_vocab(self, *args):
            calls["get_vocab"] += 1
            return backend.get_vocab(*args)

    backend = higgs.tokenizer.backend_tokenizer
    assert len(higgs.tokenizer) == 128_256
    higgs.lay_out(random_codes(), TEXT)  # headers and the system turn are kept from here on
    monkeypatch.setattr(higgs.tokenizer, "_tokenizer", Counted())
    monkeypatch.setattr(PreTrainedTokenizerFast, "get_vocab", lambda self: calls.update(get_vocab=1) or {})
    with Operations() as operations:
        higgs.lay_out(random_codes(), TEXT + " Twice.")
    assert calls == {"encode": 1}
    assert operations.count < 80


def test_a_scene_is_one_text_with_its_system_turn_as_in_transformers(higgs, released, tmp_path):
    messages = [
        {"role": "system", "content": "Generate audio following instruction."},
        {"role": "scene", "content": "A quiet room."},
        {"role": "user", "content": TEXT},
    ]
    (tmp_path / "a.wav").touch()
    answer = {"role": "assistant", "content": {"type": "audio", "audio_url": "a.wav"}}
    (tmp_path / "talk.json").write_text(json.dumps({"messages": [*messages, answer]}))
    (conversation,) = load_conversations(tmp_path / "talk.json")
    tokenizer = AutoTokenizer.from_pretrained(released("higgs"))
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ours = higgs.prompt(None, turns=conversation.turns[:-1]).text_S.tolist()
    assert ours == tokenizer.encode(theirs, add_special_tokens=False)
    assert tokenizer.convert_tokens_to_ids(".ĊĊ") in ours  # the end of one part and the beginning of the next


def test_what_is_trained_is_kept_in_float32_and_frozen_weights_as_they_were_released(higgs):
    model = copy.deepcopy(higgs)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    model.lm.model.embed_tokens.requires_grad_(False)
    train_in_float32(model)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name
    assert model.lm.model.embed_tokens.weight.dtype == torch.bfloat16
    example = model.lay_out(random_codes(), TEXT)
    assert (example.audio_targets_SC != IGNORE).sum() == 8 * 41
