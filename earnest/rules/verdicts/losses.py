"""The verdict of a loss that is not a cross-entropy of tokens."""

from earnest.rules.finding import Baseline, Verdict, Word
from earnest.rules.gan import ADVERSARIAL, DISCRIMINATOR, FEATURES, Gan
from earnest.rules.measure import Measure, degenerate, end_of, is_flat, is_off, since_below
from earnest.rules.streams import StreamView
from earnest.streams import Part, Stream

# The constant-mean baseline of 1 - cos, 1 - sqrt(r) with r the energy share of the mean: calculated for r = 0.10
# (WavLM-large features) and r = 0.85 (Qwen3 hidden states); assumed for a run that does not measure its own (probe
# "baselines").
CONSTANT_MEAN: dict[Stream, float] = {Part("wavlm"): 0.683, Part("llm"): 0.078}
UNBOUNDED: dict[Stream, str] = {
    **dict.fromkeys(ADVERSARIAL, "-E D(fake) has no baseline and may be negative: judge the gap D(real) - D(fake)"),
    **dict.fromkeys(
        FEATURES,
        "feature matching is in units of the discriminator's own activations: judge it by the discriminator and by ear",
    ),
    Part("loss_g"): "a weighted sum has no baseline: judge its parts",
    Part("commitment"): "commitment has no baseline but 0: judge codebook usage and reconstruction",
}
NO_BASELINE = "its baseline is unknown"
# How far from a baseline a loss must be, as a share of it: 3 % if the run measured it; 5 % if it is assumed, which is
# how far the two calculated baselines lie from the values reported.
MARGIN_MEASURED, MARGIN_ASSUMED = 0.03, 0.05
BLIND_MARGIN = 0.025  # of discriminators of least squares, as 1.95 to 2 in hinge (assumed)
BLIND, SEPARATED = 2.0, 0.05  # hinge loss of a discriminator that sees no difference, and of one that always does
HARDLY = 1.8  # hinge loss above which little difference is seen (assumed)


def judge(view: StreamView) -> Verdict:
    """The verdict of a loss by the lowest baseline that is known, of a discriminator by its hinge loss."""
    measured = (view.run.probes.baselines or {}).get(view.stream) or {}
    ladder = sorted((Baseline(name, value) for name, value in measured.items()), key=lambda rung: -rung.value)
    if view.train is not None and is_off(view.train):
        why = f"0 in all of its {len(view.train)} values: it is off, or has not started"
        return Verdict(view.stream, "cannot-judge", 0.0, "", None, None, why, ladder)
    if broken := degenerate(view.train):
        return Verdict(view.stream, "degenerate", None, "", None, broken[0], broken[1], ladder)
    assert view.train is not None, "it is called for what has a loss in training"
    now = end_of(view.train)
    if view.stream in DISCRIMINATOR:
        return _discriminator(view, now) if Gan(view.run).is_hinge else _by_level(view, now)
    if not ladder and view.stated is not None:
        return _against(view, now, [Baseline("stated", view.stated)], MARGIN_MEASURED)
    if not ladder and view.stream in CONSTANT_MEAN:
        assumed = Baseline("constant mean", CONSTANT_MEAN[view.stream])
        note = " (assumed: calculated for such features; the run does not measure its own)"
        return _against(view, now, [assumed], MARGIN_ASSUMED, note)
    if not ladder:
        why = UNBOUNDED.get(view.stream, NO_BASELINE)
        why = f"{view.course.in_words}; {why}" if view.course else why
        return Verdict(view.stream, "cannot-judge", now.value, "", None, None, why, [])
    return _against(view, now, ladder, MARGIN_MEASURED)


def _against(view: StreamView, now: Measure, ladder: list[Baseline], share: float, note: str = "") -> Verdict:
    lowest = ladder[-1]
    margin = share * abs(lowest.value)
    if now.low > lowest.value + margin:
        word, relation = "worse-than-chance", "above"
    elif now.high >= lowest.value - margin:
        word, relation = "at-chance", "on"
    else:
        word, relation = ("converged" if is_flat(view.train, lowest.value - now.value) else "learning"), "below"
    since = since_below(view.train, lowest.value) if relation == "below" else now.first_step
    why = f"{now.value:.3f} is {relation} the {lowest.name} baseline of {lowest.value:.3f}{note}"
    return Verdict(view.stream, word, now.value, "", lowest, since, why, ladder)


def _discriminator(view: StreamView, now: Measure) -> Verdict:
    """A hinge discriminator scores exactly 2 if it sees no difference, and 0 if it separates everything."""
    gan = Gan(view.run)
    chance = Baseline("no difference seen", BLIND)
    taken = "hinge" if gan.form else "taken for hinge: --fact gan_loss=... if it is another"
    word: Word
    if now.value < SEPARATED:
        word, since = "degenerate", since_below(now.series, SEPARATED)
        why = f"{now.value:.3f}: real and generated audio are told apart without exception"
    elif now.low > 2.1:
        word, since = "worse-than-chance", None
        why = f"{now.value:.3f}, above the 2 of a discriminator that sees no difference ({taken})"
    elif now.value > 1.95:
        word, since, gap = "at-chance", now.first_step, BLIND - now.value
        why = f"{now.value:.3f} is a gap D(real) - D(fake) of {gap:.3f}: it sees no difference ({taken})"
    elif now.value > HARDLY:
        word, since = "cannot-judge", None
        why = f"{now.value:.3f} is hardly below the 2 of a discriminator that sees no difference ({taken})"
    else:
        word, since = "learning", None
        why = f"{now.value:.3f}, below the 2 of a discriminator that sees no difference ({taken})"
    return Verdict(view.stream, word, now.value, "", chance, since, why, [chance])


def _by_level(view: StreamView, now: Measure) -> Verdict:
    """Discriminators of least squares that see no difference score 0.5 each; of another form, what is stated. At their
    start they score more, and for as long as the generator is ahead, which is no fault."""
    gan, count = Gan(view.run), view.facts.sub_discriminators
    level = 0.5 * count if gan.form == "lsgan" and count else None
    level = level if view.stated is None else view.stated
    if level is None:
        stated = f"""--fact 'baselines={{"{view.stream}": ...}}' says where it sees no difference"""
        stated = "--fact sub_discriminators=... gives its level of chance" if gan.form == "lsgan" else stated
        door = stated if gan.form else "--fact gan_loss=hinge is judged"
        why = f"{now.value:.3g} of {gan.form or 'an unknown'} form of loss: what it means depends on it; {door}"
        return Verdict(view.stream, "cannot-judge", now.value, "", None, None, why, [])
    chance = Baseline("no difference seen", level)
    word: Word
    if now.low > level * (1 + BLIND_MARGIN):
        word, since = "cannot-judge", None
        why = f"{now.value:.3f} is above the {level:.3g} of discriminators that see no difference, as at their start"
    elif now.value > level * (1 - BLIND_MARGIN):
        word, since = "at-chance", now.first_step
        why = f"{now.value:.3f} is the {level:.3g} of discriminators that see no difference"
    else:
        word, since = "learning", None
        why = f"{now.value:.3f}, below the {level:.3g} of discriminators that see no difference"
    return Verdict(view.stream, word, now.value, "", chance, since, why, [chance])
