"""The model card of a checkpoint: what it is, what it was trained on, how it scores, and how it is loaded."""

import json
from collections.abc import Mapping
from importlib.metadata import version

from earnest.facts import Facts
from earnest.models.system import System
from earnest.probes.results import HeldOutStream
from earnest.streams import Stream

LOADED = {
    "higgs": "HiggsAudioV2ForConditionalGeneration.from_pretrained(path, use_text_head=True)",
    "dia": "DiaForConditionalGeneration.from_pretrained(path)",
    "mot": "AutoModel.from_pretrained(path, trust_remote_code=True)  # needs: pip install earnest",
}


def card(model: System, facts: Facts, base: str, scores: Mapping[Stream, HeldOutStream], step: int) -> str:
    """Markdown with the head that the Hub reads. scores: held-out, by stream; none before the first evaluation."""
    head = {"library_name": "transformers", "pipeline_tag": "text-to-audio", "tags": ["earnest", model.name]}
    head |= {"base_model": base} if base.count("/") == 1 and not base.startswith((".", "/")) else {}
    lines = ["---", *(f"{name}: {json.dumps(value)}" for name, value in head.items()), "---", ""]
    data = _name((facts.config or {}).get("data", {}).get("path", "?"))
    start = f"from {_name(base)}" if base else "from scratch"
    lines += [
        f"# {model.name}, step {step}",
        "",
        f"Trained by earnest {version('earnest')}, {start}, on {facts.train_clips} clips of {data}; "
        f"{facts.held_out_clips} clips were held out. Codec: {_name(facts.codec or '?')}, "
        f"{model.codebooks} codebooks of {model.codes}.",
        "",
        "| stream | held-out cross-entropy, nats | unigram | uniform | |",
        "|---|---|---|---|---|",
    ]
    for stream, score in scores.items():
        below = score.unigram_gap is not None and score.unigram_gap[2] < 0
        numbers = (score.ce_nats, score.unigram_nats, score.uniform_nats)
        cells = [f"{number:.3f}" if number is not None else "" for number in numbers]
        lines.append(
            f"| {stream} | {' | '.join(cells)} | {'below the unigram' if below else 'not below the unigram'} |"
        )
    lines += [
        "",
        "The unigram predicts each token by its frequency in the training data; the run's report has verdicts.",
        "",
        "```python",
        "import transformers",
        f"model = transformers.{LOADED[model.name]}" if model.name in LOADED else "",
        "```",
        "",
        "```sh",
        'earnest generate PATH --text "..." --out said.wav',
        "```",
        "",
    ]
    return "\n".join(lines)


def _name(path: str) -> str:
    """A name on the Hub as it is; of a directory its own name, as whoever reads this has not got it."""
    return path if path.count("/") == 1 and not path.startswith((".", "/")) else path.rstrip("/").rpartition("/")[2]
