"""The words of a report, each with its meaning: ``earnest explain WORD``, the page and docs/concepts.md show these
texts."""

from typing import NamedTuple


class Term(NamedTuple):
    """A word, and what it means in one or two sentences that stand alone."""

    word: str
    kind: str
    meaning: str


KINDS = {
    "verdict": "What is said of a stream",
    "baseline": "What a stream is compared with",
    "measure": "What is measured, and in which unit",
    "finding": "What a finding consists of",
    "run": "What a run consists of",
    "training": "Words of training",
    "state": "How a run ended",
}

_VERDICTS = {
    "learning": "The loss is below the best baseline that is known, by more than its interval, and still falls. The "
    "model has learnt something that guessing cannot explain.",
    "converged": "The loss is below its baselines and flat: the last third of the run changed it by less than 1 % of "
    "what the run has gained.",
    "unigram-only": "The loss is below chance and not below the unigram baseline: the model has learnt how often each "
    "token occurs, and nothing about when.",
    "at-chance": "The loss is that of a model which has learnt nothing: every token is as likely as any other.",
    "worse-than-chance": "The loss is above that of a uniform guess. A healthy model never stays there; labels or "
    "inputs are wrong, or the model is sure of the wrong tokens.",
    "never-moved": "No part of the curve differs from its beginning by more than noise: nothing was trained, or "
    "nothing that this loss depends on.",
    "getting-worse": "The loss was lower before, by more than noise: stop, and take the checkpoint at the lowest "
    "held-out loss.",
    "memorising": "The training loss goes on falling, while the held-out loss stands still or rises: the model learns "
    "the training clips by heart.",
    "degenerate": "The loss says nothing: it is not a number, exactly 0, or lower than anything real can be, so that "
    "the target must be among the inputs.",
    "cannot-judge": "Something is missing that the verdict needs, most often the size of the vocabulary. The reason "
    "says what, and how to pass it with --fact, --model or --config.",
}

_BASELINES = {
    "baseline": "What a predictor that has learnt nothing of the kind scores on the same targets. A loss means "
    "something only beside one: 5.4 nats are good for one codebook and chance for another.",
    "ladder": "The baselines of a stream from high to low: uniform, unigram, bigram. Each is a predictor that knows "
    "a little more than the one before; the verdict says which of them the model has passed.",
    "uniform": "Every token of the vocabulary is as likely as any other: ln(size of the vocabulary), 6.93 nats for "
    "1024 codes and 11.76 for Llama 3's text. Also called chance.",
    "chance": "The loss of a uniform guess: ln(size of the vocabulary).",
    "unigram": "The token is guessed from how often each one occurs in the training data, without looking at what "
    "came before. Codes of silence are frequent, so this alone lies below chance.",
    "bigram": "The token is guessed from the one before it in the same codebook: the least that a model of sequences "
    "should beat.",
    "constant mean": "The best constant prediction: what a regression loss scores if the input is ignored.",
    "silence": "A codec's reconstruction loss if its output is silence.",
    "mean frame": "A codec's reconstruction loss if every frame of its output is the average frame of the data.",
}

_MEASURES = {
    "nats": "The unit of a cross-entropy with the natural logarithm. e to the power of it is the number of tokens that "
    "the model hesitates between; 1 nat is 1.44 bits.",
    "interval": "Where the true value lies, with a probability of 95 %: clips differ and steps are noisy, so that one "
    "number alone claims too much. Differences within the interval say nothing.",
    "held out": "Measured on clips that were not trained on. Only such a loss says what the model would do with new "
    "clips.",
    "counted": "A counted target is one that the loss is computed on. Padding, prompts and the fill in front of "
    "delayed codebooks have the label -100 and are not counted.",
    "copy rate": "How often the likeliest token is the input token of the same position. Near 1, labels are not "
    "shifted and the model repeats what it was just given.",
    "cross-entropy": "The mean of -ln(probability that the model gives the right token) over counted targets, in nats.",
}

_FINDINGS = {
    "finding": "One fault: a rule that fired, on which streams, since which step, with its evidence, likely causes, a "
    "next probe and a fix.",
    "rule": "A test for one kind of fault, with a code such as A201. It speaks if its evidence is strong, is silent if "
    "it looked and all is well, and is listed as not checked if what it needs is missing.",
    "confidence": "The probability that the fault is there, given the evidence: one run in twenty is assumed to have "
    "it, and the evidence multiplies these odds. Below 0.6 nothing is said. It is never 1.",
    "critical": "Training is wasted until this is mended.",
    "warning": "Something is wrong, or will be; the run may still give something.",
    "note": "Worth knowing; no fault by itself.",
    "evidence": "The numbers of the log that made the rule speak.",
    "next probe": "The cheapest experiment that tells the likely causes apart.",
    "not checked": "A rule that could not look, as the log lacks a signal, a fact or a probe that it needs. Silence of "
    "any other rule means: looked, and fine.",
}

_RUNS = {
    "run": "Everything that is known of one training: facts, signals over steps, results of probes, and files such as "
    "demos. Our own training writes one, and any log is read as one.",
    "stream": "One loss with its own baseline: the text, each codebook, or a part of a codec's loss. A total hides "
    "that one of them learns and another does not.",
    "total": "The stream of the loss that the optimizer steps on. It is judged alone if the log has no parts of it.",
    "codebook": "One of the tables that a codec quantises a frame with; codebook 0 holds the most of it. A language "
    "model of audio predicts one token a frame for each codebook.",
    "signal": "A number that is logged over steps, such as train/ce_nats/codebook_0 or train/grad_norm.",
    "fact": "Something known of a run that does not change over steps: sizes of vocabularies, the schedule, the "
    "configuration. `earnest diagnose LOG --fact NAME=VALUE` gives one that the log lacks.",
    "probe": "An experiment on the model and a batch, such as which input a label is predicted from. Our training runs "
    "them at the start and the end; `earnest.check` runs them on any model.",
    "frame": "One step of the codec's time: 1/25 s for Higgs, 1/86 s for Dia.",
    "step": "One step of the optimizer.",
    "demo": "A clip that the model makes during training, from the same text and seed every time, so that only the "
    "model differs.",
    "temperature": "How freely tokens are drawn: 0 takes the likeliest each time, 1 draws as the model believes.",
}

_TRAINING = {
    "epoch": "One pass over all training clips.",
    "batch size": "How many clips one step learns from: those of a micro-batch, times the accumulation steps, times "
    "the processes. earnest counts positions rather than clips: --data.positions-per-batch.",
    "warm-up": "The first steps, in which the learning rate rises from near 0 to its full value. Without it the first "
    "large gradients may spoil a pretrained model; a warm-up longer than the run never reaches the full rate (D304).",
    "gradient clipping": "Gradients whose norm is above a limit are scaled down to it. If nearly every step is "
    "clipped, the limit sets the step size, and not the learning rate.",
    "weight decay": "Each step also shrinks the weights by a small share, which holds back memorising.",
    "dropout": "Random activations are set to 0 in training, and none in evaluation: one reason why a held-out loss "
    "may lie below the training loss.",
    "ema": "A running average of the weights, which is evaluated and saved in place of them (--optimizer.ema-decay); "
    "also how a codec's codebooks follow the vectors that choose them.",
    "lora": "Small matrices are trained beside frozen weights, so that a fine-tune needs little memory: --lora.rank. "
    "`earnest merge RUN OUT` adds them to the weights.",
    "bf16": "Numbers of 16 bits with the range of float32 and three digits: --mixed-precision bf16. fp16 has more "
    "digits and a small range, and needs a loss scale.",
    "nan": "Not a number: the result of 0/0 or of an overflow. One NaN in a loss spoils every weight in the next step.",
    "early stopping": "The training ends, or its checkpoint is taken, where the held-out loss is lowest: "
    "`earnest generate RUN --checkpoint best`.",
    "checkpoint": "The weights and all that a run needs to go on from a step, in RUN/checkpoints.",
    "padding": "Positions that only fill a row of a batch up. Their label must be -100, or they are counted.",
    "ignore_index": "The label (-100 in PyTorch) whose targets are left out of a cross-entropy.",
    "teacher forcing": "In training each token is predicted from the true tokens before it, so that all are predicted "
    "at once. In generation the model reads its own tokens instead.",
    "exposure bias": "What teacher forcing hides: a model that has only read true tokens may drift once it reads its "
    "own. The loss does not show it; demos do.",
    "delay pattern": "Codebook k is moved k frames to the right, so that a model which predicts one column at a time "
    "knows codebook k-1 of a frame when it predicts codebook k. Undone after generation. MusicGen, Dia and Higgs.",
    "eos": "The token that ends a sequence. If it is never a target, generation never stops by itself.",
    "attention": "Each position reads the earlier ones, by weights that it computes. A causal mask keeps it from "
    "reading later ones: without that mask the target is among the inputs.",
    "tokenizer": "What turns text into numbers of a vocabulary; for audio, a codec.",
    "cfg": "Classifier-free guidance: in training some texts are left out; in generation the prediction moves away "
    "from the one without a text, --guidance 3 for example. Too much of it distorts.",
    "top-k": "Only the k likeliest tokens are drawn from.",
    "top-p": "Only the likeliest tokens that together have the probability p are drawn from.",
    "repetition": "Generation that goes round in a loop of tokens: common at a low temperature, and with a model that "
    "has learnt too little.",
    "bits per token": "A cross-entropy in bits: nats times 1.44. A uniform guess over 1024 codes costs 10 bits.",
    "ctc": "A loss that aligns a text with longer audio by itself: it sums over all alignments. It is a sum over a "
    "sequence, so that no chance level of a token applies to it.",
    "kl": "How far one distribution is from another, in nats; 0 if they are the same. In a VAE it falls to 0 if the "
    "latents are ignored.",
    "rvq": "Residual vector quantisation: codebook 0 approximates a frame, and each later one what those before it "
    "have left over.",
    "mel loss": "How far a codec's output is from the recording in a mel spectrogram. Its scale depends on window and "
    "logarithm: compare it with silence and the mean frame, not across projects.",
    "discriminator": "A network that tells recordings from a codec's output; the codec learns to mislead it. Its loss "
    "has no goal of 0: then it has won, and teaches nothing (`earnest explain discriminator-wins`).",
    "mode collapse": "A generator that makes the same output whatever it is asked for.",
    "sample rate": "Samples per second of a recording. A codec takes one rate; earnest resamples to it.",
    "rtf": "Real-time factor: seconds of computing for a second of audio. Below 1 it can be listened to as it grows.",
    "wer": "Word error rate: which share of the words a recogniser hears wrongly in generated speech.",
    "mos": "Mean opinion score: how good listeners, or a model of them, find speech, from 1 to 5.",
    "seed": "Where random numbers start: the same seed, data and machine give the same run on a CPU.",
}

SYNONYMS = {
    "warmup": "warm-up",
    "classifier-free guidance": "cfg",
    "nucleus sampling": "top-p",
    "word error rate": "wer",
    "real-time factor": "rtf",
    "mean opinion score": "mos",
    "kl divergence": "kl",
    "clipping": "gradient clipping",
    "grad clip": "gradient clipping",
    "end of sequence": "eos",
    "bfloat16": "bf16",
    "adapter": "lora",
    "vq": "rvq",
    "residual vector quantization": "rvq",
    "mel": "mel loss",
    "pad": "padding",
    "-100": "ignore_index",
    "ce": "cross-entropy",
    "overfit": "memorising",
    "validation loss": "held out",
    "val loss": "held out",
    "vocab": "tokens",
    "vocabulary": "tokens",
    "lr": "learning_rate",
    "ppl": "perplexity",
    "gan": "discriminator",
}

_STATES = {
    "running": "The last row is recent, and no end is written.",
    "finished": "The run reached the steps that it was started for.",
    "interrupted": "It was stopped (Ctrl-C, SIGTERM) and wrote a checkpoint; --resume goes on from there.",
    "killed": "It wrote no end, and nothing else for a while: a kill, a crash, a full disk, or a machine that went "
    "away. --resume goes on from the last checkpoint.",
}

TERMS: dict[str, Term] = {
    word: Term(word, kind, meaning)
    for kind, words in (
        ("verdict", _VERDICTS),
        ("baseline", _BASELINES),
        ("measure", _MEASURES),
        ("finding", _FINDINGS),
        ("run", _RUNS),
        ("training", _TRAINING),
        ("state", _STATES),
    )
    for word, meaning in words.items()
}


def meaning(word: str) -> str:
    """What a word means; empty if the glossary does not have it."""
    term = TERMS.get(word)
    return term.meaning if term else ""


def terms_of(kind: str) -> list[Term]:
    """The terms of one kind (`KINDS`), in the order of the glossary."""
    return [term for term in TERMS.values() if term.kind == kind]
