"""Family C: does gradient arrive? The logged side, and the results of the probes that look at parameters."""

from collections.abc import Mapping

import numpy as np

from earnest.probes.results import FrozenTensors, Gradients, Inputs, LowPrecision, Moved, Optimizer
from earnest.quantiles import median
from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import EXACT, FAIR, STRONG
from earnest.rules.finding import Severity
from earnest.rules.gan import DISCRIMINATOR
from earnest.rules.measure import falling, start_of_last
from earnest.rules.needs import Fact, LastStep, Losses, PlainLosses, Probe, Signal
from earnest.run import Series
from earnest.streams import Stream

SEPARATES = 0.1  # loss of a discriminator that tells nearly all apart (hinge: 2 by chance)
EARLY_STEPS = 20  # within them a part may not be logged yet, and weights hardly move (assumed)


@rule("C101", "critical", explains=("B102", "B103", "B110", "C301", "C302"))
def gradient_is_zero(grad_norm: Signal, losses: PlainLosses | None) -> Answers:
    """No gradient arrives.

    ## What it sees
    The gradient norm is exactly 0 in the last three logged steps or in a tenth of all; a warning if there are fewer
    than three. With a stream, of that group of parameters. Not if the loss falls meanwhile: then the number is wrong,
    not the gradient; nor of a discriminator whose loss is next to 0 there: F102 speaks of it.
    ## Likely causes
    - the loss does not depend on the trainable parameters: detached, frozen, or computed under no_grad
    - gradient checkpointing over a frozen embedding without enable_input_require_grads
    - every target is masked
    ## Next probe
    After one backward pass list name, requires_grad and gradient norm of every parameter.
    ## Fix
    Call `model.enable_input_require_grads()` with gradient checkpointing and LoRA; remove detach() from the path to the
    loss.
    ## References
    locuslab/open-unlearning#178: LoRA without effect.
    """
    yield Looked()
    values = grad_norm.finite
    zero = values.value == 0
    if zero[-3:].all() or zero.mean() >= 0.1:
        start = int(values.step[np.argmax(zero)])
        total = (losses or {}).get(None)
        if grad_norm.stream is None and total is not None and _falls(total.since(start).finite):
            return
        own = next((losses[one] for one in DISCRIMINATOR if losses and one in losses), None)
        if grad_norm.stream in DISCRIMINATOR and own is not None:
            then = own.value[np.isin(own.step, values.step[zero])]
            if len(then) and median(then) < SEPARATES:
                return
        words = f"gradient norm exactly 0 in {zero.mean():.0%} of the logged steps"
        if len(zero) < 3:
            words = f"gradient norm exactly 0 in {zero.sum()} of {len(zero)} logged rows"
            yield Evidence(start, words, FAIR, grad_norm.rows(start), severity="warning")
            return
        yield Evidence(start, words, EXACT, grad_norm.rows(start))


def _falls(loss: Series) -> bool:
    """Whether a loss falls; of fewer than four rows by a tenth, which needs a gradient."""
    return falling(loss) or (1 < len(loss) < 4 and bool(loss.value[-1] < 0.9 * loss.value[0]))


@rule("C102", "critical", explains=("B102", "B103", "C103"))
def trainable_without_gradient(gradients: Probe[Gradients]) -> Answers:
    """Parameters that should learn get no gradient.

    ## What it sees
    The gradient probe: parameters with requires_grad whose gradient is None or 0 after a backward pass. Before training
    (`earnest.check`) this is critical for one of several of a kind, a warning for what was computed with, and a note
    for what this batch did not use, or used without gradients.
    ## Likely causes
    - a wrapper stripped the loss of that module
    - a codebook is a buffer, or its straight-through path is detached
    - the module is not used by this batch (text-only batch, unused expert)
    ## Next probe
    Sum that module's output into the loss by hand: if its gradient is still None, the path is cut before it.
    ## Fix
    Return and add the module's own loss; use z + (q - z).detach() for a quantiser.
    ## References
    modelscope/ms-swift PR#9752: the sub-talker's loss was stripped, so that module learnt nothing.
    """
    yield Looked()
    kinds: list[tuple[tuple[str, ...], str, Severity | None]]
    if gradients.beside is None or gradients.cut is None or gradients.idle is None:
        kinds = [(gradients.without_gradient, "trainable parameters get no gradient", None)]
    else:
        kinds = [
            (gradients.beside, "get no gradient, others of their kind do", None),
            (gradients.cut, "are computed with, and get no gradient", "warning"),
            (gradients.idle, "are not used with gradients on", "note"),
        ]
    for names, words, severity in kinds:
        if names:
            words = f"{len(names)} {words}: {', '.join(names[:3])}"
            yield Evidence(gradients.step, words, EXACT, [{"parameter": name} for name in names[:6]], severity=severity)


@rule("C103", "warning", points=5, explains=("B102",))
def updates_out_of_range(update_frac: Signal) -> Answers:
    """Each step changes the weights far too little or far too much.

    ## What it sees
    The ratio of update to weight norm of a group stays below 1e-6 or above 0.1 in the last half of the run (usual: 1e-5
    to 5e-2, about 1e-3).
    ## Likely causes
    - learning rate wrong by orders of magnitude, or zero for this group
    - updates lost in bf16 weights: below 1/256 of a weight they round to nothing
    ## Next probe
    Log the ratio per group for fifty steps at ten times and a tenth of the learning rate.
    ## Fix
    Keep a float32 copy of the weights, and set the learning rate so that the ratio is near 1e-3.
    ## References
    Karpathy, micrograd/makemore lectures: update ratio about 1e-3 (a rule of thumb, assumed).
    """
    yield Looked()
    half = update_frac.tail(0.5)
    level = median(half.value)
    if level < 1e-6 or level > 0.1:
        yield Evidence(int(half.step[0]), f"an update is {level:.1e} of the weights", STRONG, half.rows())


@rule("C104", "critical", explains=("D203",))
def frozen_weights_change(frozen: Probe[FrozenTensors]) -> Answers:
    """Something that was meant to be frozen changes.

    ## What it sees
    The probe that hashes frozen parameters and buffers found changed ones.
    ## Likely causes
    - EMA codebooks or batch-norm statistics update in train mode although requires_grad is False
    - weight decay is applied to parameters without a gradient
    ## Next probe
    Hash parameters and buffers before and after ten steps with learning rate 0.
    ## Fix
    Put frozen parts in eval() after every call of model.train(), and leave them out of the optimizer.
    ## References
    hungphongtrn/Amy-LM: rvq_rest.eval().
    """
    yield Looked()
    names = frozen.changed
    if names:
        words = f"{len(names)} frozen tensors changed: {', '.join(names[:3])}"
        yield Evidence(frozen.step, words, EXACT, [{"tensor": name} for name in names[:6]])


@rule("C105", "critical", explains=("B102", "B103", "B110"))
def trainable_not_in_optimizer(optimizer: Probe[Optimizer]) -> Answers:
    """Parameters that require a gradient are not given to the optimizer.

    ## What it sees
    The probe that compares requires_grad with the optimizer's groups found parameters that no group holds.
    ## Likely causes
    - the optimizer was built before adapters or new embeddings were added
    - a name filter matches nothing
    ## Next probe
    Print the number of parameters per optimizer group and of requires_grad.
    ## Fix
    Build the optimizer last, from `[p for p in model.parameters() if p.requires_grad]`.
    ## References
    SLM-MoT train_hf.py: the name filter 'adapter' matches nothing.
    """
    yield Looked()
    names = optimizer.missing
    if names:
        words = f"{len(names)} trainable parameters are in no optimizer group: {', '.join(names[:3])}"
        yield Evidence(0, words, EXACT, [{"parameter": name} for name in names[:6]])


@rule("C106", "critical", explains=("A101", "B102", "B103", "D102", "B106"))
def inputs_are_dropped(inputs: Probe[Inputs]) -> Answers:
    """A key of the batch never reaches the model.

    ## What it sees
    The probe that compares the batch's keys with the arguments of the innermost forward call: keys are missing there,
    or the logits are empty.
    ## Likely causes
    - Trainer removes columns that the signature of forward does not name (PeftModel's signature)
    - a wrapper passes on only the keys it knows
    ## Next probe
    Print the keyword arguments in the base model's forward for one batch.
    ## Fix
    Set remove_unused_columns=False and task_type=None, or name the arguments in forward.
    ## References
    huggingface/transformers PR#27865; higgs-audio forks with logits of shape [0, 8, 1026].
    """
    yield Looked()
    dropped, shape = list(inputs.dropped), list(inputs.logits_shape or ())
    if dropped or 0 in shape:
        words = f"dropped on the way: {', '.join(dropped)}" if dropped else f"logits of shape {shape}"
        yield Evidence(0, words, EXACT, [{"dropped": dropped, "logits_shape": shape or None}])


@rule("C107", "critical", explains=("B102", "C103", "C302"))
def updates_round_to_nothing(low_precision: Probe[tuple[LowPrecision, ...]], moved: Probe[Moved] | None) -> Answers:
    """Weights are trained in bfloat16 or float16, and the optimizer keeps nothing of what rounding takes from a step.

    ## What it sees
    The probe that lists trained parameters of fewer bits than float32, and tries the optimizer on numbers of that type:
    sixteen small steps that add up in float32 leave them as they are. Critical if a step as large as the learning rate
    leaves more than a tenth of the entries as they are, or if more than a tenth of a part's entries have not moved in
    the run; else a warning.
    ## Likely causes
    - transformers loads a checkpoint in its own type, and mixed precision is autocast only: weights stay bfloat16
    - model.to(torch.bfloat16), or torch_dtype, before full fine-tuning
    - adapters were added in the type of their base (transformers' add_adapter)
    ## Next probe
    Copy the trained weights, train 60 steps, and count the entries that are not what they were.
    ## Fix
    Load what is trained in float32 (dtype=torch.float32; adapters: parameter.data.float()) with autocast for speed;
    frozen weights may stay bfloat16. Or take an optimizer with a float32 copy, stochastic rounding or Kahan summation.
    ## References
    Zamirai et al. 2020 (arXiv:2010.06192): nearest rounding of weight updates is the bottleneck of pure bfloat16.
    """
    yield Looked()
    for found in low_precision:
        if found.keeps_more:
            continue
        still = {part: 1 - share for part, share in moved.share.items() if share < 0.9} if moved else {}
        words = f"{found.parameters:,} of {found.trained:,} trained parameters are {found.type}"
        if found.optimizer:
            words += f" under {found.optimizer}"
            words += ", which keeps no more bits of them" if found.keeps_more is False else ""
        if found.still_frac is not None and found.learning_rate is not None:
            rate = f"a step of the learning rate {found.learning_rate:.1e}"
            words += f"; {rate} leaves {found.still_frac:.0%} as they are"
        if still and moved:
            worst = max(still, key=still.__getitem__)
            words += f"; {still[worst]:.0%} of {worst} has not moved in {moved.steps} steps"
        sure = found.keeps_more is False and ((found.still_frac or 0) > 0.1 or bool(still))
        rows = [{"parameter": name, "type": found.type} for name in found.names[:6]]
        odds = EXACT if found.keeps_more is False else FAIR
        yield Evidence(0, words, odds, rows, severity="critical" if sure else "warning")


@rule("C201", "warning")
def declared_loss_absent(loss_weights: Fact[Mapping[Stream, float]], losses: Losses, last_step: LastStep) -> Answers:
    """A loss that has a weight does not appear in the log.

    ## What it sees
    A stream with a weight above 0 has neither a loss nor a cross-entropy in the log, while others have.
    ## Likely causes
    - a wrapper drops that loss, so its module gets no gradient
    - it is only added in a later phase, or logged under another name (`--map column=signal`)
    ## Next probe
    Check that the module of this stream has a gradient after one backward pass.
    ## Fix
    Return the loss from forward and log it unweighted.
    ## References
    modelscope/ms-swift PR#9752.
    """
    absent = [stream for stream, weight in loss_weights.items() if weight and stream not in losses]
    known = [stream for stream in loss_weights if stream in losses]
    if not known:
        yield TooEarly(f"a loss of {' or '.join(map(str, loss_weights)) or 'a stream that has a weight'}")
    elif absent and last_step < EARLY_STEPS:
        yield TooEarly(f"{EARLY_STEPS} steps (it has {last_step})")
    else:
        yield Looked()
        if absent:
            logged = f"logged are {', '.join(map(str, known))}"
            words = f"no loss of {', '.join(map(str, absent))} in the log; {logged}"
            rows = [{"stream": str(stream), "weight": loss_weights[stream]} for stream in absent]
            yield Evidence(0, words, FAIR, rows)


@rule("C304", "warning", points=0)
def optimizer_stops_stepping(
    optimizer_s: Signal, learning_rate: Signal | None, warmup_steps: Fact[int] | None
) -> Answers:
    """The optimizer does not step any more.

    ## What it sees
    The time of the optimizer's step was a number and is NaN in the last two reports or more: a mean over no step. That
    the learning rate stands still since then, in the middle of its warm-up, is told beside it.
    ## Likely causes
    - every gradient is NaN or infinite, and the trainer skips such steps without a word
    - the loss scale has collapsed
    ## Next probe
    Print the gradient norm of each step, and count the steps that the trainer skips.
    ## Fix
    Find the batch whose gradient is not finite; train in bfloat16, or lower the learning rate.
    ## References
    espnet2/train/trainer.py: optim_step_time is only registered if the gradient norm is finite.
    """
    if not len(optimizer_s):
        yield TooEarly(f"a value of {optimizer_s.key}")
        return
    yield Looked()
    bad = ~np.isfinite(optimizer_s.value)
    start = start_of_last(bad)
    if start == 0 or len(bad) - start < 2:
        return
    since = int(optimizer_s.step[start])
    words = f"its time is not a number in the last {len(bad) - start} of {len(bad)} reports, since step {since}"
    rate = learning_rate.since(since).finite.value if learning_rate is not None else np.zeros(0)
    if len(rate) and np.ptp(rate) == 0:
        words += f"; the learning rate stands at {rate[0]:.3g}"
        words += " in its warm-up" if warmup_steps and since < warmup_steps else ""
    yield Evidence(since, words, STRONG, optimizer_s.rows())
