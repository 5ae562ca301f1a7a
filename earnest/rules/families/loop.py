"""Families A, C, D and F, what a training loop does (`earnest.watch`, `earnest check SCRIPT`): what it hands
to its loss, and in which mode and order it works."""

from earnest.probes.results import EvaluationMode, GeneratorStep, LostClipping, NoStep, WrongInput
from earnest.records import plain
from earnest.rules.catalogue import Answers, Evidence, Looked, rule
from earnest.rules.decision import EXACT
from earnest.rules.needs import Probe

SHOWN = 3  # names of layers in a sentence


@rule("A208", "critical", explains=("B101", "B102", "B103", "B110", "C103", "E201", "F101", "F102"))
def loss_is_given_probabilities(wrong_inputs: Probe[tuple[WrongInput, ...]]) -> Answers:
    """A loss function is given something else than it expects, such as probabilities instead of logits.

    ## What it sees
    The rows that cross_entropy is given add up to 1 and have no negative entry; nll_loss or kl_div are given rows that
    are no log-probabilities; binary_cross_entropy_with_logits is given what a sigmoid returned.
    ## Likely causes
    - the model ends in softmax, log_softmax or sigmoid, and the loss function applies it once more
    - a loss was exchanged (nll_loss, kl_div, BCELoss) and the model's last layer was not
    ## Next probe
    Print the smallest entry and the sums of a few rows of what the loss is given.
    ## Fix
    Hand over what the loss expects: raw logits for cross_entropy and BCEWithLogitsLoss, `log_softmax(...)` for nll_loss
    and kl_div.
    ## References
    torch.nn.CrossEntropyLoss: "the input is expected to contain the unnormalized logits". With softmax before it, the
    loss of V classes stays above ln(1 + (V - 1) / e).
    """
    yield Looked()
    for found in wrong_inputs:
        words = f"{found.function} is given {found.given}, and expects {found.expected}"
        yield Evidence(0, words + (f": {found.where}" if found.where else ""), EXACT, [plain(found)])


@rule("C110", "warning")
def trains_in_evaluation_mode(evaluation_mode: Probe[tuple[EvaluationMode, ...]]) -> Answers:
    """The model is in evaluation mode while it is trained.

    ## What it sees
    At every look since some step, all modules of a model that an optimizer steps on are in evaluation mode, and it has
    dropout above 0, or batch normalisation that would gather statistics.
    ## Likely causes
    - `model.eval()` for an evaluation, and no `model.train()` after it
    - `from_pretrained` returns a model in evaluation mode, and the loop does not change it
    ## Next probe
    Print `model.training` right before `loss.backward()`.
    ## Fix
    Call `model.train()` at the beginning of every epoch and after each evaluation; to train without dropout, set its
    rate to 0, so that it is seen.
    ## References
    torch.nn.Module.eval; transformers' `from_pretrained`: "The model is set in evaluation mode by default".
    """
    yield Looked()
    for found in evaluation_mode:
        names = ", ".join(found.layers[:SHOWN])
        words = f"{found.model} is trained in evaluation mode: {len(found.layers)} of its layers do nothing ({names})"
        yield Evidence(found.since_step, words, EXACT, [plain(found)])


@rule("C111", "critical")
def optimizer_never_steps(no_step: Probe[NoStep]) -> Answers:
    """Gradients are computed, and nothing steps.

    ## What it sees
    After 200 backward passes no optimizer has made a step, and sampled weights are bit for bit as they were.
    ## Likely causes
    - `optimizer.step()` is missing, or stands behind a condition that is never true
    - the number of micro-batches to accumulate is larger than an epoch
    - every step is skipped, as the gradients are not finite
    ## Next probe
    Print one weight before and after a step.
    ## Fix
    Call `optimizer.step()` after `loss.backward()`, and look at the condition it stands behind.
    ## References
    torch.optim: "All optimizers implement a step() method, that updates the parameters".
    """
    yield Looked()
    if no_step.same_weights:
        yield Evidence(0, f"{no_step.passes} backward passes, and no optimizer step", EXACT, [plain(no_step)])


@rule("D306", "warning", explains=("C101", "D301"))
def clipping_is_lost(lost_clipping: Probe[LostClipping]) -> Answers:
    """Gradients are clipped where it changes nothing.

    ## What it sees
    The gradients of an optimizer are clipped at every step, but never between the last backward pass and the step: what
    is clipped has been used already, or is added to by the pass that follows.
    ## Likely causes
    - clip_grad_norm_ stands before `loss.backward()`, or after `optimizer.step()`
    ## Next probe
    Print the norm that clip_grad_norm_ returns: 0, or that of the step before.
    ## Fix
    Keep the order: backward, (unscale), clip, step, zero_grad.
    ## References
    torch.nn.utils.clip_grad_norm_: "Clip the gradient norm": it changes the gradients that are there when it is called.
    """
    yield Looked()
    for name in lost_clipping.optimizers:
        words = f"the gradients of {name or 'the optimizer'} are never clipped between backward() and step()"
        yield Evidence(0, words, EXACT, [plain(lost_clipping)])


@rule("F405", "warning")
def discriminator_teaches_nobody(generator_step: Probe[GeneratorStep]) -> Answers:
    """The discriminator is trained, and the generator's loss does not depend on it.

    ## What it sees
    Before every step of the generator so far, 50 or more, the discriminator was called with detached inputs only.
    ## Likely causes
    - the generated audio is detached in the adversarial loss too, or the scores of the discriminator's step are used
    - the adversarial loss is not added, or its weight is 0 from a condition that never ends
    - the adversarial phase has not begun, and the discriminator is trained before it on purpose
    ## Next probe
    Print the gradient's norm at the generated audio from the adversarial loss alone.
    ## Fix
    Run the discriminator anew on the generated audio, not detached, in the generator's step, and add that loss.
    ## References
    Goodfellow et al. 2014, algorithm 1: the generator descends the gradient through the discriminator.
    """
    yield Looked()
    if generator_step.unjudged:
        words = f"before {generator_step.unjudged} steps of the generator the discriminator saw detached audio only"
        yield Evidence(0, words, EXACT, [plain(generator_step)])
