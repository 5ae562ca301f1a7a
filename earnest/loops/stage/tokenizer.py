"""A tokenizer where there is none: bytes, and special tokens that get an id when they are asked for."""

import itertools
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_WORDS = re.compile(
    r"<\|[!-;=?-{}~]+\|>|<[A-Za-z_]*\d+>"
)  # surely special tokens, wherever they stand in a text
BRACKETS = r"<[!-;=?-~]+>"  # how most special tokens are written: without spaces, within < and >


def stand_in(ids: Mapping[str, int] = MappingProxyType({}), ends: bool = False, size: int = 0) -> Any:
    """Of transformers' fast kind, with a chat template. ids: of special tokens, by their names in `SPECIAL`, as a
    model's configuration has them · ends: whether every text gets the token that ends it, as for encoder-decoders ·
    size: rows of the model's vocabulary, which its length is at least; tokens that are added get the ids from there on.

    Tokens in < and > are put into the vocabulary itself: of tens of thousands (one for each code), the library's own
    `add_tokens` takes half a minute.
    """
    from tokenizers import models
    from transformers import AddedToken, PreTrainedTokenizerFast

    vocabulary, special = _vocabulary(ids)

    def model() -> Any:
        return models.BPE(vocab=vocabulary, merges=[], unk_token=SPECIAL["unk_token"], ignore_merges=True)

    class Bytes(PreTrainedTokenizerFast):
        """Unknown special tokens are added, those too that a processor asks for by name (image_token)."""

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                if name.startswith("_") or not name.endswith(("_token", "_token_id")):
                    raise
                token = f"<|{name.removesuffix('_id').removesuffix('_token')}|>"
                return self.convert_tokens_to_ids(token) if name.endswith("_id") else token

        def __len__(self) -> int:
            return max(super().__len__(), size, *(number + 1 for number in vocabulary.values()))

        def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
            return self._put(new_tokens, special_tokens, max(len(vocabulary), size))

        def _put(self, new_tokens: Any, special_tokens: bool, first: int) -> int:
            """Add tokens; the first free id is sought from `first` on."""
            every = [new_tokens] if isinstance(new_tokens, str | AddedToken) else list(new_tokens)
            words = [str(one) if isinstance(one, str) else str(one.content) for one in every]
            if self.backend_tokenizer.get_vocab_size() > len(vocabulary) or not all(
                re.fullmatch(BRACKETS, word) for word in words
            ):
                return int(super().add_tokens(new_tokens, special_tokens=special_tokens))
            before = len(vocabulary)
            taken = set(vocabulary.values())
            free = (n for n in itertools.count(first) if n not in taken)
            vocabulary.update({word: next(free) for word in dict.fromkeys(words) if word not in vocabulary})
            self._tokenizer.model = model()  # type: ignore[union-attr]
            return len(vocabulary) - before

        def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
            """Ids that a configuration names without their tokens get a token, too."""
            known, asked = set(self.get_vocab().values()), [ids] if isinstance(ids, int) else list(ids)
            new = {f"<|{int(one)}|>": int(one) for one in asked if int(one) not in known}
            if new:
                vocabulary.update(new)
                self._tokenizer.model = model()  # type: ignore[union-attr]
            return super().convert_ids_to_tokens(ids, skip_special_tokens)

        def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
            for token in [tokens] if isinstance(tokens, str) else tokens:
                if self.backend_tokenizer.token_to_id(token) is None:
                    self._put(AddedToken(token, special=True), True, len(vocabulary))  # the checkpoint has it
            return super().convert_tokens_to_ids(tokens if isinstance(tokens, str) else list(tokens))

    end = (special["eos_token"], vocabulary[special["eos_token"]]) if ends else None
    made = _reading(Bytes, vocabulary, size)(tokenizer_object=_of_bytes(model(), end), **special)
    made.chat_template = TEMPLATE
    return made


def _reading(kind: Any, vocabulary: Mapping[str, int], size: int) -> Any:
    """The same kind of tokenizer, which learns the special tokens that it reads. size: rows of the model."""

    class StandIn(kind):
        def _encode_plus(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
            self._learn(text)
            return super()._encode_plus(text, *args, **kwargs)

        def _batch_encode_plus(self, texts: Any, *args: Any, **kwargs: Any) -> Any:  # before transformers 5
            self._learn(texts)
            older: Any = super()
            return older._batch_encode_plus(texts, *args, **kwargs)

        def _learn(self, text: Any) -> None:
            """Special tokens in a text are in the checkpoint's vocabulary, as far as the model has rows for them."""
            if isinstance(text, list | tuple):
                for one in text:
                    self._learn(one)
            elif isinstance(text, str):
                new = {one for one in SPECIAL_WORDS.findall(text) if self.backend_tokenizer.token_to_id(one) is None}
                if new and (not size or len(vocabulary) + len(new) <= size):
                    self._put(sorted(new), True, len(vocabulary))

    return StandIn


def _vocabulary(ids: Mapping[str, int]) -> tuple[dict[str, int], dict[str, str]]:
    """Ids of all tokens, and the special tokens by their names."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([*SPECIAL.values(), *letters])}
    special, token_of = dict(SPECIAL), dict[int, str]()
    for name, number in ids.items():
        if number >= len(vocabulary):
            special[name] = token_of.setdefault(number, SPECIAL[name])
            vocabulary[special[name]] = number
    return vocabulary, special


def _of_bytes(model: Any, end: tuple[str, int] | None) -> Any:
    """A tokenizer of bytes. end: a token and its id, which end every text."""
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors

    tokenizer: Any = Tokenizer(model)
    alone = pre_tokenizers.Split(Regex(BRACKETS), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([alone, bytes_])
    if end:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end[0]}", pair=f"$A $B {end[0]}", special_tokens=[end]
        )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
