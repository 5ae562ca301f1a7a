"""Text to ids: the ChatML layout of Higgs, for Llama's tokenizer and for a byte tokenizer that needs no download."""

import re
from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

BEGIN, START_HEADER, END_HEADER, END_OF_TURN, END_OF_TEXT = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|end_of_text|>",
)
AUDIO_OUT_BOS, AUDIO_OUT, AUDIO_DELAY, AUDIO_EOS = (
    "<|audio_out_bos|>",
    "<|AUDIO_OUT|>",
    "<|reserved_special_token_6|>",
    "<|audio_eos|>",
)
SPECIALS = [BEGIN, END_OF_TEXT, START_HEADER, END_HEADER, END_OF_TURN, AUDIO_OUT_BOS, AUDIO_OUT, AUDIO_DELAY, AUDIO_EOS]
ONE_TOKEN_WORDS = ["system", "user", "assistant", "\n\n"]  # one token each in Llama's vocabulary too


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer of 256 bytes and Higgs' special tokens: any text survives encode → decode exactly."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIALS])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in ONE_TOKEN_WORDS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def header_ids(tokenizer: PreTrainedTokenizerBase, role: str) -> list[int]:
    """The ids that begin a turn of a role: <|start_header_id|>role<|end_header_id|> and a blank line."""
    return tokenizer.encode(f"{START_HEADER}{role}{END_HEADER}\n\n", add_special_tokens=False)


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str, marks: Sequence[str] = ()) -> list[int]:
    """Text to ids. A special token's name in it is text like any other, but for `marks` that the tokenizer knows.

    The tokenizer is never asked for its whole vocabulary: of Llama's 128,256 ids it makes a new dict each time, which
    takes a hundred times as long as all the rest of a clip.
    """
    known = {mark: at for mark in marks if mark in text and (at := _id(tokenizer, mark)) is not None}
    pieces = re.split(f"({'|'.join(map(re.escape, known))})", text) if known else [text]
    ids_L: list[int] = []
    for piece in pieces:
        ids_L += [known[piece]] if piece in known else plain_ids(tokenizer, piece)
    return ids_L


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Text to ids, in which no special token can be smuggled."""
    if not text:
        return []
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    # transformers' own call takes twice as long as making the ids, so its backend is called directly. transformers sets
    # this flag again before every call of its own, so setting it here changes nothing for others.
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    backend.no_truncation()
    return backend.encode(text, add_special_tokens=False).ids


def special_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    return tokenizer.convert_tokens_to_ids(token)  # type: ignore[return-value]


def _id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """None if the tokenizer does not know the token."""
    at = special_id(tokenizer, token)
    return None if at == tokenizer.unk_token_id else at
