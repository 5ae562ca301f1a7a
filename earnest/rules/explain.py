"""The texts on rules, facts, token ids, the documents' threshold tables beside the baselines, and the public trainers and
models (`earnest.profiles`), as Markdown; `earnest.explain` finds them."""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin

from earnest.facts import FACTS
from earnest.profiles.explain import known_models, trainers
from earnest.rules.catalogue import FAMILIES, Rule


def page(rule: Rule) -> str:
    """One rule as a page; `docs/rules` holds the same."""
    head, _, body = rule.text.partition("\n")
    facts = f"{rule.severity} · family {rule.code[0]}, {FAMILIES[rule.code[0]]} · since {rule.since}"
    needs = "Needs: " + "; ".join(asked.need.words() for asked in rule.asks if not asked.optional)
    if used := [asked.need.words() for asked in rule.asks if asked.optional]:
        needs = (
            f"{needs}; uses if known: {'; '.join(used)}" if needs != "Needs: " else f"Needs one of: {'; '.join(used)}"
        )
    explains = f"\n\nExplains: {', '.join(rule.explains)}." if rule.explains else ""
    return f"# {rule.code} {rule.name}\n\n{head}\n\n{facts}\n\n{needs}{explains}\n\n{body.strip()}\n".replace(
        "\n## ", "\n\n## "
    ).replace("\n\n\n", "\n\n")


def listing() -> str:
    """Every rule with its severity, as a Markdown table per family."""
    from earnest.rules import catalogue

    parts: list[str] = []
    for letter, words in FAMILIES.items():
        rows = [
            f"| {rule.code} | {rule.name} | {rule.severity} | {rule.title} |"
            for rule in catalogue()
            if rule.code[0] == letter
        ]
        parts.append(
            "\n".join([f"## {letter} · {words}", "", "| code | name | severity | fault |", "|---|---|---|---|", *rows])
        )
    return "\n\n".join(parts) + "\n"


def facts() -> str:
    """Every fact with its unit, its meaning and where a user finds it, as a Markdown table."""
    rows = [
        f"| {fact.name} | {_type(fact.type)} | {fact.unit or '-'} | {fact.meaning} | {fact.where} |"
        for fact in FACTS.values()
    ]
    head = [
        "# Facts",
        "",
        "What is known about a run beside its signals: `earnest diagnose LOG --fact NAME=VALUE`.",
        "",
    ]
    return "\n".join(
        [*head, "| name | value | unit | meaning | where it is found |", "|---|---|---|---|---|", *rows, ""]
    )


def _type(annotation: Any) -> str:
    """A fact's type as a value is written on the command line."""
    if get_origin(annotation) is Literal:
        return ", ".join(get_args(annotation))
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    names = {int: "whole number", float: "number", bool: "true, false", str: "text"}
    return names.get(plain) or ("[a, b, ...]" if get_origin(plain) is tuple else '{"name": ...}')


def _nats(size: int) -> str:
    return f"{math.log(size):.3f}"


TOKENS = f"""# Token ids

| id | where | meaning |
|---|---|---|
| -100 | labels | not scored (PyTorch's ignore_index). Never an input. Prompt, padding, delay fill and reference clips get it |
| 0-1023 | codes | an entry of one codebook of 1024. Means nothing without its codebook |
| 0-2047 | codes | the same in a codebook of 2048 (EnCodec 32 kHz, Mimi) |
| 1024 | codes | Higgs: begin of stream, fills the front of delayed codebooks. Dia: **end** of stream. In *text* it is an ordinary piece of a word |
| 1025 | codes | Higgs: end of stream, fills the back. Dia: padding |
| 1026 | codes | Dia: begin of stream. Higgs: no id, but the *number* of classes (1024 codes + 2), the last axis of its audio logits |
| 1027, 1028 | codes | Dia: 1027 is unused, 1028 is its number of classes |
| 2048 | codes | MusicGen: the special token, both begin and padding; its number of code entries |
| 128000, 128001, 128009 | text | Llama 3: begin of text; end of text, also used as padding; end of turn |
| 128011-128016 | text | Higgs: audio begin, audio end, audio-out begin, delay placeholder (transformers only), AUDIO, AUDIO_OUT |
| 128256.. | joint | MoT: 128256 + code. 128256 is also the size of Llama 3's vocabulary |
| 130304 | joint | MoT: no id but the size of the joint vocabulary, 128256 + 2048 |

## Chance, in nats per target
| classes | uniform guess |
|---|---|
| 1024 | {_nats(1024)} |
| 1026 (Higgs, one codebook) | {_nats(1026)}; summed over 8 codebooks, as transformers logs it, {8 * math.log(1026):.2f} |
| 1028 (Dia, one codebook) | {_nats(1028)} |
| 2048 (MoT, within the audio range) | {_nats(2048)} |
| 128256 (Llama 3 text) | {_nats(128256)} |
| 130304 (MoT, joint) | {_nats(130304)}, of which {math.log(130304) - math.log(2048):.2f} only say "emit audio": never judge audio by it |

## Layouts
- **Higgs** (8 codebooks, 25 frames/s): per clip `1024 codes 1025`, then codebook c delayed by c; front filled with 1024, back with 1025.
  Labels: codes and the *first* 1025 of each codebook; all fill -100. Text labels: the assistant's part only; for plain speech synthesis these
  are constants, so a text loss near 0 is expected and says nothing about language.
- **Dia** (9 codebooks, 86 frames/s): `1026 codes 1024 1025...`, delays 0, 8, 9, ..., 15. Labels: codes and the 1024 at its delayed row; 1026 and 1025 are -100.
- **MoT** (4 codebooks x 2048, 50 frames/s): time first, `c0t0 c1t0 c2t0 c3t0 c0t1 ...`, each 128256 + code. Text positions are -100, no begin or end of audio.
- **MusicGen** (4 x 2048): delays 0, 1, 2, 3; 2048 fills both ends and is -100 in the labels.
- **Amy, Mimi** (codec): no special ids; codes 0-2047 per codebook, codebook 0 semantic.

## Who shifts
HiggsAudioV2, Llama and CSM shift labels inside the model: give them unshifted ones. Dia does not: give it labels already shifted. Musicgen wants them
delayed and unshifted. earnest aligns targets with the logits that predict them, once, before the model.
"""

BANDS = f"""# The documents' threshold tables, beside the baselines

A fixed table cannot know the codec, the codebook, the silence in the data or the discriminator. The tables are shown because people
use them; the last column is what the baselines say, and where a table contradicts it or itself. S0 is SLM-MoT's training analysis, S1 and
S4 are analyses of a Higgs Audio fork, S2 is Amy-LM's cheat sheet, S3 a research log of Dia on music.

## Audio cross-entropy (S0, S1, S4)
| document | says | baseline |
|---|---|---|
| S0 | random is 11.6 (ln 130304) | ln 130304 is {_nats(130304)}; targets are audio only, so chance is ln 2048 = {_nats(2048)}; 5.4 is 29 % below it, not "45 % better" |
| S0 | 2-3 excellent, 3-4 good, 4-6 acceptable, > 6 poor | not portable: released MusicGen scores 3.4-3.5 on music, silence-heavy effects 0.96, and 6 is excellent for the deepest codebook of some codecs |
| S0 | a plateau means: raise the learning rate 5-10 times | first measure the data's floor; on random audio no learning rate helps, and a mean since step 0 always looks like a plateau |
| S1 | text 11.5-12.3 "learning" | chance is ln 128256 = {_nats(128256)}: nothing learnt |
| S1 | audio 6.6-6.8 "learning" | 2-5 % below chance, ln 1026 = {_nats(1026)}: label frequencies at most |
| S1 | total 18-19 "effective multimodal training" | the sum of two chances, {math.log(128256) + math.log(1026):.2f} |
| S1, S3, S4 | a loss of 0.004-0.05 is critical (S1), failing (S3), normal (S4) | too good for unseen codes: copying or a leak, or memorised if held-out is high; exactly 0 or NaN means that nothing was scored |
| S3 | held-out loss is irrelevant; entropy "below 0" | one held-out clip says little, but 9-11 above ln 1028 = {_nats(1028)} is overconfidence; entropy is never negative |
| S4 | text 14 to 10 is moderate learning | a start above chance is misalignment |

## Codec and GAN (S2)
| loss | good | warning | critical | baseline |
|---|---|---|---|---|
| llm (1 - cos) | < 0.1 | 0.1-0.3 | > 0.3 | the constant mean scores 1 - sqrt(r): 0.078 if 85 % of the energy is the mean. 0.08 may be nothing learnt |
| wavlm (1 - cos) | < 0.2 | 0.2-0.5 | > 0.5 | the constant mean scores 0.683 at r = 0.10; 0.668 is that. S2 calls the same 0.668 "warning" and "critical" |
| msspec | < 0.1 | 0.1-0.5 | > 0.5 | depends on scales, empty mel filters and divisor: compare with silence and the mean frame. S2's target elsewhere is < 0.05 |
| feat | < 0.05 | 0.05-0.2 | > 0.2 | in units of the discriminator's activations: falls when those collapse. No threshold transfers |
| adv_g | 0.1-0.5 | 0.5-1.0 | > 1.0 | -E D(fake): unbounded, may be negative; judge the gap D(real) - D(fake) |
| loss_d | 1.5-2.0 | 0.5-1.5, 2-3 | < 0.5, > 3 | 2 is knowing nothing, 0 is knowing all. "Stable at 1.97" is a blind discriminator; < 0.5 is too strong (S2 also says too weak), > 2 is wrong on average |
| loss_g | 1-3 | 3-5 | > 5 | a weighted sum: changes with the weights and the phase, no baseline |
| adv_g / loss_g | 0.3-0.5 | | | S2's own example is 0.14; a ratio of unlike things |
| wavlm / llm | 1.0 | | | two teachers with different mean energy: no reason to be equal |

Text that stays above chance, audio far below what codes allow, or any loss of exactly 0 is a fault in the labels or inputs, whatever the table says.
"""

TOPICS: dict[str, Callable[[], str]] = {
    "facts": facts,
    "trainers": trainers,
    "models": known_models,
    "tokens": lambda: TOKENS,
    "bands": lambda: BANDS,
}
