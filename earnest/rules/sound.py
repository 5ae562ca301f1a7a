"""Family G: what it sounds like, from the facts that stand beside demos, and generation against teacher forcing."""

import math
from collections import defaultdict

import numpy as np

from earnest.rules.catalogue import Evidence, TooEarly, rule
from earnest.rules.decision import EXACT, FAIR, STRONG, WEAK
from earnest.streams import TEXT


def _demos(run, fact):
    """Demos that carry a fact, in order of their steps."""
    return sorted(
        (one for one in run.artifacts if one.kind == "demo" and one.facts.get(fact) is not None),
        key=lambda one: one.step,
    )


def _last(demos):
    return [one for one in demos if one.step == demos[-1].step] if demos else []


def _rows(demos, *facts):
    return [{"step": one.step, **{fact: one.facts.get(fact) for fact in facts}} for one in demos[:6]]


@rule("G101", needs=["run"], severity="warning")
def demos_are_silent(run):
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
    demos = _demos(run, "silence_frac")
    if not demos:
        yield TooEarly("demos with the fact silence_frac")
    last = _last(demos)
    if len(last) >= 2 and all(one.facts["silence_frac"] > 0.95 for one in last):
        yield Evidence(
            last[0].step,
            f"all {len(last)} demos of step {last[0].step} are silent",
            STRONG,
            _rows(last, "text", "temperature", "silence_frac"),
        )


@rule("G102", needs=["run"], severity="warning")
def demos_never_stop(run):
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
    demos = _demos(run, "stopped")
    if not demos:
        yield TooEarly("demos with the fact stopped")
        return
    last = _last(demos)
    ever = any(one.facts["stopped"] for one in demos)
    if len(last) >= 4 and last[0].step >= 200 and not ever:
        rounds = len({one.step for one in demos})
        yield Evidence(
            demos[0].step,
            f"none of {len(demos)} demos in {rounds} rounds stopped by itself",
            FAIR if rounds >= 2 else WEAK,
            _rows(last, "text", "temperature", "stopped"),
        )


@rule("G103", needs=["run"], severity="warning")
def demos_get_shorter(run):
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
    rounds = defaultdict(list)
    for one in _demos(run, "length_ratio"):
        rounds[one.step].append(one.facts["length_ratio"])
    if len(rounds) < 3:
        yield TooEarly("demos of 3 rounds with the fact length_ratio")
        return
    level = [float(np.median(rounds[step])) for step in sorted(rounds)]
    if (
        level[-1] < 0.75
        and all(later < before for before, later in zip(level[-3:], level[-2:], strict=False))
        and level[-1] < 0.9 * max(level)
    ):
        yield Evidence(
            sorted(rounds)[-3],
            f"length ratio {', '.join(f'{one:.2f}' for one in level[-4:])} in the last rounds",
            FAIR,
            [{"step": step, "length_ratio": float(np.median(rounds[step]))} for step in sorted(rounds)[-6:]],
        )


@rule("G104", needs=["run"], severity="note")
def demos_clip(run):
    """Demos are clipped.

    ## What it sees
    More than 1 % of the samples of a last-round demo stand at full scale, in most demos.
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
    demos = _demos(run, "clipping_frac")
    if not demos:
        yield TooEarly("demos with the fact clipping_frac")
    last = _last(demos)
    if len(last) >= 2 and np.mean([one.facts["clipping_frac"] > 0.01 for one in last]) > 0.5:
        yield Evidence(
            last[0].step,
            f"{np.median([one.facts['clipping_frac'] for one in last]):.1%} of the samples at full scale",
            STRONG,
            _rows(last, "text", "temperature", "clipping_frac"),
        )


@rule("G105", needs=["run"], severity="note")
def sampled_demos_leave_the_path(run):
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
    score = {
        one.path: one.facts.get("match_frac", 1 - one.facts["wer"] if one.facts.get("wer") is not None else None)
        for one in run.artifacts
        if one.kind == "demo"
    }
    demos = [one for one in _demos(run, "temperature") if score[one.path] is not None]
    last = _last(demos)
    greedy = [score[one.path] for one in last if one.facts["temperature"] == 0]
    sampled = [score[one.path] for one in last if one.facts["temperature"] >= 0.9]
    if not greedy or not sampled:
        yield TooEarly("demos at temperature 0 and 1 with the fact match_frac or wer")
        return
    if np.median(greedy) > 0.7 and np.median(sampled) < 0.3:
        codebooks = run.facts.codebooks or 0
        losses = [
            float(one.tail(0.1, 3).value.mean())
            for key, one in run.series.items()
            if key[:2] == ("train", "ce_nats") and key.stream not in (None, TEXT) and len(one.finite)
        ]
        words = f"right at temperature 0 ({np.median(greedy):.0%}), not at 1 ({np.median(sampled):.0%})"
        if codebooks and losses:
            words += f"; a frame of {codebooks} codes is all right with probability {math.exp(-codebooks * float(np.mean(losses))):.0%}"
        yield Evidence(last[0].step, words, STRONG, _rows(last, "temperature", "match_frac", "wer"))


@rule("G106", needs=["run"], severity="warning")
def temperature_not_applied(run):
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
    groups = defaultdict(list)
    for one in _demos(run, "temperature"):
        applied = one.facts.get("applied_temperature")
        if applied is not None and abs(applied - one.facts["temperature"]) > 1e-6:
            yield Evidence(
                one.step,
                f"asked for {one.facts['temperature']:g}, applied {applied:g}",
                EXACT,
                _rows([one], "temperature", "applied_temperature"),
            )
            return
        if one.facts.get("digest"):
            groups[(one.step, one.facts.get("text"), one.facts.get("seed"), one.facts["digest"])].append(one)
    if not groups:
        yield TooEarly("demos with the facts temperature and digest")
    # several texts: a very confident model may give one short text the same codes at every temperature
    same = [
        group
        for group in groups.values()
        if len(
            {
                one.facts["temperature"]
                for one in group
                if one.facts["temperature"] >= 0.5 or one.facts["temperature"] == 0
            }
        )
        >= 2
    ]
    texts = {(key[0], key[1]) for key in groups}
    if len(same) >= 2 and len(same) >= 0.8 * len(texts):
        yield Evidence(
            same[0][0].step,
            f"{len(same)} of {len(texts)} texts sound the same at every temperature",
            FAIR,
            _rows(same[0], "text", "temperature", "digest"),
        )


@rule("G107", needs=["run"], severity="warning")
def demos_repeat_themselves(run):
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
    demos = _demos(run, "repeat_frac")
    if not demos:
        yield TooEarly("demos with the fact repeat_frac")
    last = [one for one in _last(demos) if one.facts.get("temperature", 1) > 0]
    if len(last) >= 2 and np.mean([one.facts["repeat_frac"] > 0.5 for one in last]) > 0.5:
        yield Evidence(
            last[0].step,
            f"{np.median([one.facts['repeat_frac'] for one in last]):.0%} of the frames repeat",
            FAIR,
            _rows(last, "text", "temperature", "repeat_frac"),
        )


@rule("G201", needs=["probe:reload"], severity="critical")
def checkpoint_reloads_differently(reload):
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
    before, after = reload.ce_before, reload.ce_after
    missing, unexpected = list(reload.missing), list(reload.unexpected)
    differs = before is not None and after is not None and abs(after - before) > 0.01 * abs(before)
    if differs or missing or unexpected:
        words = [f"{before:.3f} nats before, {after:.3f} after loading"] if differs else []
        words += [
            f"{len(keys)} {kind} keys" for kind, keys in (("missing", missing), ("unexpected", unexpected)) if keys
        ]
        yield Evidence(reload.step, ", ".join(words), EXACT, [{"missing": missing[:6], "unexpected": unexpected[:6]}])
