"""Family G: what it sounds like, from the facts that demos carry, and generation against teacher forcing."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from earnest.probes.results import Reload
from earnest.quantiles import median
from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import EXACT, FAIR, STRONG, WEAK
from earnest.rules.needs import Demos, Fact, PerStream, Probe, WithFact
from earnest.run import Artifact, Series
from earnest.streams import TEXT, Stream

TWO_DEMOS = "2 demos in the last round"


def _last_round(demos: Demos) -> list[Artifact]:
    return [demo for demo in demos if demo.step == demos[-1].step]


def _values(demos: Sequence[Artifact], fact: str) -> list[Any]:
    return [demo.facts[fact] for demo in demos]


def _rows(demos: Sequence[Artifact], *facts: str) -> list[dict[str, Any]]:
    return [{"step": demo.step, **{fact: demo.facts.get(fact) for fact in facts}} for demo in demos[:6]]


@rule("G101", "warning")
def demos_are_silent(demos: Annotated[Demos, WithFact("silence_frac")]) -> Answers:
    """Demos are silent.

    ## What it sees
    Demos of the last two rounds whose silence_frac is above 0.95, at every temperature.
    ## Likely causes
    - the model copies its input, or was trained on padding
    - codes outside the codec's range are clamped to a silent one
    ## Next probe
    Decode a training clip's own codes through the same path: if that is silent too, the codec or the undelay is at
    fault.
    ## Fix
    Check undelay and code range first, then the labels (A201).
    ## References
    higgs-audio#94: loss near 0 and silent audio from unshifted labels.
    """
    last = _last_round(demos)
    if len(last) < 2:
        yield TooEarly(TWO_DEMOS)
        return
    yield Looked()
    if min(_values(last, "silence_frac")) > 0.95:
        words, rows = f"all {len(last)} demos of step {last[0].step} are silent", ("text", "temperature")
        yield Evidence(last[0].step, words, STRONG, _rows(last, *rows, "silence_frac"))


@rule("G102", "warning")
def demos_never_stop(demos: Annotated[Demos, WithFact("stopped")]) -> Answers:
    """Generation never ends by itself.

    ## What it sees
    In the last round no demo (of at least four) stopped, after at least 200 steps, although audio is learning (a
    cross-entropy far below its start).
    ## Likely causes
    - the end of stream is never a counted target
    - generation looks for another id or codebook than the labels end with
    - it is early: the end is one target per clip, learnt late
    ## Next probe
    Feed a training clip up to its last frame and read the probability of the end.
    ## Fix
    Count the first end of each codebook in the labels; stop on the id and codebook that the labels use.
    ## References
    transformers' HiggsAudioV2 labels mask 1025, so the end is never trained.
    """
    last, ever = _last_round(demos), any(_values(demos, "stopped"))
    if not ever and (len(last) < 4 or last[0].step < 200):
        yield TooEarly("4 demos of a step from 200 on")
        return
    yield Looked()
    if not ever:
        rounds = len({demo.step for demo in demos})
        words, rows = f"none of {len(demos)} demos in {rounds} rounds stopped by itself", ("text", "temperature")
        yield Evidence(demos[0].step, words, FAIR if rounds >= 2 else WEAK, _rows(last, *rows, "stopped"))


@rule("G103", "warning")
def demos_get_shorter(demos: Annotated[Demos, WithFact("length_ratio")]) -> Answers:
    """Demos get shorter from round to round: speech gets faster.

    ## What it sees
    The median length_ratio (length of the demo to that of the text when spoken) falls over at least three rounds, to
    below 0.75, while the loss falls.
    ## Likely causes
    - labels are shifted twice: the model learns to skip every other frame
    - guidance too high
    ## Next probe
    Trace one label to its logit: an offset of 2 is a double shift.
    ## Fix
    Hand unshifted labels to a model that shifts by itself.
    ## References
    QwenLM/Qwen3-TTS#39, #179, #371: speech gets faster each epoch.
    """
    rounds: dict[int, list[float]] = defaultdict(list)
    for demo in demos:
        rounds[demo.step].append(demo.facts["length_ratio"])
    if len(rounds) < 3:
        yield TooEarly("demos of 3 rounds with the fact length_ratio")
        return
    yield Looked()
    level = {step: median(ratios) for step, ratios in rounds.items()}  # demos are in order of their steps
    *_, earlier, before, now = level.values()
    if now < 0.75 and now < before < earlier and now < 0.9 * max(level.values()):
        words = f"length ratio {', '.join(f'{one:.2f}' for one in list(level.values())[-4:])} in the last rounds"
        rows = [{"step": step, "length_ratio": one} for step, one in list(level.items())[-6:]]
        yield Evidence(list(level)[-3], words, FAIR, rows)


@rule("G104", "note")
def demos_clip(demos: Annotated[Demos, WithFact("clipping_frac")]) -> Answers:
    """Demos are clipped.

    ## What it sees
    More than 1 % of the samples of a last-round demo are at full scale, in most demos.
    ## Likely causes
    - the decoder's gain is off, or audio was normalised differently before encoding
    - saved without scaling to the range of the format
    ## Next probe
    Decode a training clip's own codes: if that clips too, it is the codec or the writer.
    ## Fix
    Normalise loudness before encoding, and limit when writing.
    ## References
    earnest's own; no publication known.
    """
    last = _last_round(demos)
    if len(last) < 2:
        yield TooEarly(TWO_DEMOS)
        return
    yield Looked()
    clipped = _values(last, "clipping_frac")
    if np.mean([share > 0.01 for share in clipped]) > 0.5:
        words, rows = f"{median(clipped):.1%} of the samples at full scale", ("text", "temperature")
        yield Evidence(last[0].step, words, STRONG, _rows(last, *rows, "clipping_frac"))


@rule("G105", "note")
def sampled_demos_leave_the_path(
    demos: Annotated[Demos, WithFact("temperature")], codebooks: Fact[int] | None, ce_nats: PerStream | None
) -> Answers:
    """Greedy demos are right, sampled ones are noise: the probability mass is not yet concentrated.

    ## What it sees
    In the last round, demos at temperature 0 match (match_frac, the share of frames of the reference clip; or 1 - wer)
    and those at temperature 0.9 or above do not.
    ## Likely causes
    - every frame takes K codes at once: all are right with probability exp(-K CE) only, and one wrong code is a state
      never trained on
    - a model that knows one path by heart; demos then flip between noise and sample, with nothing between
    ## Next probe
    Generate at 0, 0.3, 0.5 and 1 with fixed seeds, and count the frame at which each leaves the reference.
    ## Fix
    Judge at temperature 0 and with top-k while the loss is high; more clips, so that neighbouring paths are trained.
    ## References
    rubin-labs 2025-11-24: loss 0.1 with 18 codes per frame is exp(-1.8) = 17 % per frame. Bengio et al. 2015 (exposure
    bias).
    """
    last = [demo for demo in _last_round([demo for demo in demos if _match(demo) is not None] or demos)]
    scores = [(demo.facts["temperature"], score) for demo in last if (score := _match(demo)) is not None]
    greedy = [score for temperature, score in scores if temperature == 0]
    sampled = [score for temperature, score in scores if temperature >= 0.9]
    if not greedy or not sampled:
        yield TooEarly("demos at temperature 0 and 1 with the fact match_frac or wer")
        return
    yield Looked()
    if median(greedy) > 0.7 and median(sampled) < 0.3:
        words = f"right at temperature 0 ({median(greedy):.0%}), not at 1 ({median(sampled):.0%})"
        nats = _nats_per_code(ce_nats or {})
        if codebooks and nats is not None:
            whole = f"{math.exp(-codebooks * nats):.0%}"
            words += f"; a frame of {codebooks} codes is all right with probability {whole}"
        yield Evidence(last[0].step, words, STRONG, _rows(last, "temperature", "match_frac", "wer"))


def _match(demo: Artifact) -> float | None:
    """How much of a demo is right: the share of frames of its reference, else 1 - word error rate."""
    wer = demo.facts.get("wer")
    return demo.facts.get("match_frac", None if wer is None else 1 - wer)


def _nats_per_code(ce_nats: Mapping[Stream | None, Series]) -> float | None:
    audio = [series for stream, series in ce_nats.items() if stream not in (None, TEXT) and len(series.finite)]
    return float(np.mean([float(series.tail(0.1, 3).value.mean()) for series in audio])) if audio else None


@rule("G106", "warning")
def temperature_not_applied(demos: Annotated[Demos, WithFact("temperature")]) -> Answers:
    """Demos at different temperatures are the same: the temperature is not applied.

    ## What it sees
    Demos of one text, seed and step at different temperatures with the same digest; or a fact applied_temperature that
    differs from the one asked for.
    ## Likely causes
    - do_sample is off, so every temperature is greedy
    - transformers' Dia clamps temperatures below 1 to 1
    ## Next probe
    Print the logits processors that generation builds.
    ## Fix
    Divide the logits by the temperature yourself, or set do_sample=True.
    ## References
    transformers' DiaGenerationMixin clamps temperature below 1.0 with a warning.
    """
    by_sound: dict[tuple[Any, ...], list[Artifact]] = defaultdict(list)
    told = False
    for demo in demos:
        asked, applied = demo.facts["temperature"], demo.facts.get("applied_temperature")
        told |= applied is not None
        if applied is not None and abs(applied - asked) > 1e-6:
            rows = _rows([demo], "temperature", "applied_temperature")
            yield Evidence(demo.step, f"asked for {asked:g}, applied {applied:g}", EXACT, rows)
            return
        if digest := demo.facts.get("digest"):
            by_sound[demo.step, demo.facts.get("text"), demo.facts.get("seed"), digest].append(demo)
    if not by_sound and not told:
        yield TooEarly("demos with the facts temperature and digest")
        return
    yield Looked()
    # several texts: a very confident model may give one short text the same codes at every temperature
    same = [alike for alike in by_sound.values() if _of_several_temperatures(alike)]
    texts = {(step, text) for step, text, *_ in by_sound}
    if len(same) >= 2 and len(same) >= 0.8 * len(texts):
        words = f"{len(same)} of {len(texts)} texts sound the same at every temperature"
        yield Evidence(same[0][0].step, words, FAIR, _rows(same[0], "text", "temperature", "digest"))


def _of_several_temperatures(demos: Sequence[Artifact]) -> bool:
    """Temperatures at which sounds should differ: 0, and those from 0.5 on."""
    return len({one for one in _values(demos, "temperature") if one == 0 or one >= 0.5}) >= 2


@rule("G107", "warning")
def demos_repeat_themselves(demos: Annotated[Demos, WithFact("repeat_frac")]) -> Answers:
    """Demos repeat a few frames over and over.

    ## What it sees
    In the last round more than half of the frames repeat an earlier stretch (repeat_frac), in most demos and at
    temperature above 0 too.
    ## Likely causes
    - sampling at low temperature falls into a loop
    - trained on held notes or silence
    ## Next probe
    Sample at temperature 1 with repetition-aware sampling (window 7, at most 2 repeats).
    ## Fix
    Sample at 0.7 to 1 with top-k 50, and repetition-aware sampling.
    ## References
    Higgs Audio's generation configuration: RAS window 7, 2 repeats.
    """
    last = [demo for demo in _last_round(demos) if demo.facts.get("temperature", 1) > 0]
    if len(last) < 2:
        yield TooEarly(f"{TWO_DEMOS}, at a temperature above 0")
        return
    yield Looked()
    repeated = _values(last, "repeat_frac")
    if np.mean([share > 0.5 for share in repeated]) > 0.5:
        words, rows = f"{median(repeated):.0%} of the frames repeat", ("text", "temperature")
        yield Evidence(last[0].step, words, FAIR, _rows(last, *rows, "repeat_frac"))


@rule("G201", "critical")
def checkpoint_reloads_differently(reload: Probe[Reload]) -> Answers:
    """The checkpoint does not give the same loss in a fresh process.

    ## What it sees
    The reload probe: the held-out loss differs by more than 1 % from before saving, or keys are missing or unexpected.
    ## Likely causes
    - a part is not saved: adapters, new embeddings, EMA codebooks kept outside the state
    - weights are tied or merged on loading
    ## Next probe
    List missing and unexpected keys, and compare the hash of each tensor.
    ## Fix
    Save everything that has a gradient and every buffer; load strictly.
    ## References
    earnest's own; no publication known.
    """
    yield Looked()
    before, after = reload.ce_before, reload.ce_after
    words: list[str] = []
    if before is not None and after is not None and abs(after - before) > 0.01 * abs(before):
        words.append(f"{before:.3f} nats before, {after:.3f} after loading")
    kinds = {"missing": list(reload.missing), "unexpected": list(reload.unexpected)}
    words += [f"{len(keys)} {kind} keys" for kind, keys in kinds.items() if keys]
    if words:
        rows = [{kind: keys[:6] for kind, keys in kinds.items()}]
        yield Evidence(reload.step, ", ".join(words), EXACT, rows)
