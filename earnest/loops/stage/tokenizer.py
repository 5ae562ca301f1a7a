"""A tokenizer where there is none: bytes, and special tokens that get an id when they are asked for."""

from typing import Any

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def stand_in() -> Any:
    """Of transformers' fast kind, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AddedToken, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([*SPECIAL.values(), *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]

    class StandIn(PreTrainedTokenizerFast):
        """Unknown special tokens are added."""

        def convert_tokens_to_ids(self, tokens: Any) -> Any:
            for token in [tokens] if isinstance(tokens, str) else tokens:
                if token not in self.get_vocab():
                    self.add_tokens(AddedToken(token, special=True), special_tokens=True)
            return super().convert_tokens_to_ids(tokens)

    made = StandIn(tokenizer_object=tokenizer, **SPECIAL)
    made.chat_template = TEMPLATE
    return made
