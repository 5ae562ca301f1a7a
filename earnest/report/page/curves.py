"""Curves: the loss of each stream against its baselines, optimisation, and every other signal."""

from collections.abc import Sequence
from functools import partial

from earnest.report import charts, view
from earnest.report.page.fragment import Fragment, fill
from earnest.report.page.streams import ladder
from earnest.rules.finding import Baseline, Diagnosis
from earnest.run import Run, Series
from earnest.signals import SIGNALS
from earnest.streams import TOTAL, Stream

LOSSES = ("ce_nats", "loss")  # drawn with their baselines; the first that a stream has
OPTIMISATION = ("learning_rate", "grad_norm")
MOST_CHARTS = 80  # of each kind on one page
MOST_POINTS = 48_000  # on one page: what may be zoomed into, at some 8 bytes each
LOSS_SHARE = 3  # a loss may hold so many times the points of another signal

Signals = dict[str, dict[Stream | None, dict[str, Series]]]  # name -> stream -> split -> Series


def losses(run: Run, diagnosis: Diagnosis) -> Fragment:
    """One chart a stream, with its ladder drawn in; streams in the order of the verdicts, then the rest."""
    signals, verdicts = _signals(run), {verdict.stream: verdict for verdict in diagnosis.verdicts}
    hues, known = _splits(signals), {stream: name for name in reversed(LOSSES) for stream in signals.get(name, {})}
    streams = [stream for stream in dict.fromkeys([*verdicts, *known]) if stream in known]
    drawn: list[charts.Chart] = []
    for stream in streams[:MOST_CHARTS]:
        verdict, name = verdicts.get(stream or TOTAL), known[stream]
        chart = charts.chart(
            view.line(stream),
            signals[name][stream],
            run.last_step,
            unit(name),
            ladder(verdict) if verdict else (),
            _marks(diagnosis, stream),
            verdict.verdict if verdict else None,
            hues=hues,
            most=_most(signals, loss=True),
        )
        drawn += [chart] if chart else []
    html = fill(
        "losses.html",
        charts=drawn,
        lines=[(split, min(index, charts.HUES - 1)) for index, split in enumerate(hues)],
        marked=any(chart.marks for chart in drawn),
        left_out=max(0, len(streams) - MOST_CHARTS),
    )
    return Fragment("loss", "Loss", html if drawn else "")


def optimisation(run: Run, diagnosis: Diagnosis) -> Fragment:
    """Learning rate, and gradient norm with the norm at which it is clipped."""
    signals, clip = _signals(run), run.facts.max_grad_norm
    draw = partial(charts.chart, marks=_marks(diagnosis, None), hues=_splits(signals), most=_most(signals))
    drawn = [
        draw(
            view.line(f"{name.replace('_', ' ')} {stream or ''}"),
            splits,
            run.last_step,
            unit(name),
            # a group of its own may be clipped elsewhere
            ladder=[Baseline("clipped at", clip)] if clip and (name, stream) == ("grad_norm", None) else (),
            may_log=name == "grad_norm",
        )
        for name in OPTIMISATION
        for stream, splits in signals.get(name, {}).items()
    ]
    shown = [chart for chart in drawn if chart][:MOST_CHARTS]
    return Fragment("optimisation", "Optimisation", fill("optimisation.html", charts=shown) if shown else "")


def signals(run: Run, diagnosis: Diagnosis) -> Fragment:
    """Everything else, by name."""
    found, groups, room, left_out = _signals(run), list[tuple[str, str, list[charts.Chart]]](), MOST_CHARTS, 0
    for name, streams in sorted(found.items()):
        if name in OPTIMISATION or name == "ce_nats":
            continue
        if name == "loss":  # a stream drawn by its cross-entropy keeps its optimised loss down here
            streams = {stream: splits for stream, splits in streams.items() if stream in found.get("ce_nats", {})}
        meaning = SIGNALS[name].meaning if name in SIGNALS else ""
        taken = list(streams.items())[:room]
        left_out, room = left_out + len(streams) - len(taken), room - len(taken)
        draw = partial(charts.chart, last_step=run.last_step, unit=unit(name), may_log=True, most=_most(found))
        drawn = [draw(view.line(stream or name), splits, hues=_splits(found)) for stream, splits in taken]
        groups += [(view.line(name), meaning, [chart for chart in drawn if chart])] if any(drawn) else []
    html = fill("signals.html", groups=groups, left_out=left_out) if groups else ""
    return Fragment("signals", "Other signals", html)


def _signals(run: Run) -> Signals:
    """The run's series by name, stream and split: one chart shows the splits of one (name, stream)."""
    found: Signals = {}
    for (split, name, stream), series in run.series.items():
        of = stream or TOTAL if name in LOSSES else stream
        found.setdefault(name, {}).setdefault(of, {})[view.line(split)] = series
    return found


def _most(signals: Signals, loss: bool = False) -> int:
    """How many points of one line the page may hold, so that all of them fit."""
    lines = {
        wanted: sum(
            len(splits)
            for name, streams in signals.items()
            if (name in LOSSES) == wanted
            for splits in list(streams.values())[:MOST_CHARTS]
        )
        for wanted in (True, False)
    }
    return MOST_POINTS * (LOSS_SHARE if loss else 1) // max(1, LOSS_SHARE * lines[True] + lines[False])


def _splits(signals: Signals) -> list[str]:
    """The splits of the losses, train first: each has one colour on the whole page."""
    found = {split for name in LOSSES for splits in signals.get(name, {}).values() for split in splits}
    return sorted(found, key=lambda split: (split != "train", split))


def unit(name: str) -> str:
    """The unit of a signal; empty if it is none of ours."""
    return SIGNALS[name].unit if name in SIGNALS else ""


def _marks(diagnosis: Diagnosis, stream: Stream | None) -> Sequence[tuple[int, str]]:
    """Where findings on this stream begin; those on the whole run are marked on the total, and if no stream is
    named."""
    return [
        (finding.since_step, finding.rule)
        for finding in diagnosis.findings
        if finding.since_step and (stream in finding.streams or (not finding.streams and stream in (None, TOTAL)))
    ]
