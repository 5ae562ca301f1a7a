"""The vocabulary of signals: what a `Run` may hold over its steps, in which unit, and what it means.

A signal's key is written ``split/name`` or ``split/name/stream``: ``train/ce_nats/codebook_0``, ``eval/ce_nats/text``,
``train/grad_norm``. What a signal belongs to is its stream (`earnest.streams`), also if that is no loss but a group of
parameters or a discriminator: ``train/grad_norm/discriminator``.
"""

from dataclasses import dataclass
from typing import NamedTuple

from earnest import streams
from earnest.streams import Stream


class Key(NamedTuple):
    """Which signal: its split (train, eval, test), its name in the vocabulary, and its stream; None: the whole run."""

    split: str
    name: str
    stream: Stream | None = None

    def __str__(self) -> str:
        return "/".join(str(part) for part in self if part is not None)


def key(name: str, stream: Stream | str | None = None, split: str = "train") -> str:
    """A key as a row of ``steps.jsonl`` spells it."""
    return "/".join(str(part) for part in (split, name, stream) if part is not None)


def parse(text: str) -> Key:
    """The key that is written so; raises ValueError if it is not of the form split/name[/stream]."""
    parts = text.split("/", 2)
    if len(parts) < 2:
        raise ValueError(f"signal key {text!r} is not split/name or split/name/stream")
    return Key(parts[0], parts[1], streams.parse(parts[2]) if len(parts) > 2 else None)


@dataclass(frozen=True)
class Signal:
    """One entry of the vocabulary."""

    name: str
    unit: str
    meaning: str
    baseline: str | None = None


SIGNALS = {
    signal.name: signal
    for signal in [
        Signal(
            "ce_nats", "nats per counted target", "unweighted mean cross-entropy of one stream", "the chance ladder"
        ),
        Signal(
            "ce_full_nats",
            "nats per counted target",
            "ce_nats plus the cost of naming the stream at all, in a vocabulary of several",
        ),
        Signal("loss", "as optimised", "the loss that was stepped on; with a stream: that part of it, unweighted"),
        Signal(
            "accuracy_frac", "fraction", "argmax equals target, over counted targets", "the commonest label's share"
        ),
        Signal(
            "copy_frac",
            "fraction",
            "argmax equals the input token at that position",
            "the share of repeats in the data",
        ),
        Signal("counted_frac", "fraction", "positions of a stream whose target counts"),
        Signal(
            "null_ce_nats", "nats per counted target", "ce_nats with the null input in place of the text", "ce_nats"
        ),
        Signal(
            "text_perplexity",
            "tokens",
            "perplexity of a fixed text on the text path of a model with a language model inside",
            "at step 0",
        ),
        Signal("entropy_nats", "nats", "mean entropy of the predicted distribution at counted positions", "ln V"),
        Signal("seen_frac", "fraction", "entries of a codebook that have been a target since the run started"),
        Signal("seen_perplexity", "entries", "exp of the entropy of a codebook's targets since the run started"),
        Signal("grad_norm", "norm", "global gradient norm before clipping"),
        Signal("clipped_frac", "fraction", "1 where the gradient was clipped, averaged over the logged steps"),
        Signal("learning_rate", "per step", "learning rate of the first parameter group"),
        Signal(
            "used_frac",
            "fraction",
            "entries of a codebook chosen at least once in the window",
            "expectation at this sample size",
        ),
        Signal(
            "perplexity", "entries", "exp of the entropy of a codebook's choices", "expectation at this sample size"
        ),
        Signal("residual_frac", "fraction", "energy left after a codebook, of what its group of codebooks was given"),
        Signal("d_real", "logit", "discriminator's mean output on real audio"),
        Signal("d_fake", "logit", "discriminator's mean output on generated audio"),
        Signal("d_auc", "fraction", "how often the discriminator scores a real patch above a generated one", "0.5"),
        Signal("d_active_frac", "fraction", "patches inside the hinge's margin, which alone teach the discriminator"),
        Signal(
            "gradient_frac",
            "fraction",
            "share of a loss in the balanced gradient at the waveform",
            "its weight's share",
        ),
        Signal(
            "skipped_frac", "fraction", "steps of one side that moved nothing, as their loss or gradient was not finite"
        ),
        Signal(
            "f0_r2", "fraction", "variance of the pitch that the codes of one codebook explain on held-out clips", "0"
        ),
        Signal(
            "energy_r2",
            "fraction",
            "variance of the level in dB that the codes of one codebook explain on held-out clips",
            "0",
        ),
        Signal(
            "word_accuracy_frac",
            "fraction",
            "held-out frames whose word the code of one codebook names",
            "the commonest word's share",
        ),
        Signal("padding_frac", "fraction", "positions of the batch that hold padding"),
        Signal("step_s", "seconds", "wall time of the step"),
        Signal("data_s", "seconds", "the part of the step's wall time spent waiting for data"),
        Signal("optimizer_s", "seconds", "the part of the step's wall time that the optimizer's step takes"),
        Signal("memory_bytes", "bytes", "memory in use"),
        Signal("update_frac", "fraction", "norm of the step's update over the norm of the weights"),
        Signal("loss_scale", "factor", "of mixed precision's loss scaling"),
        Signal(
            "error_frac",
            "fraction",
            "what a recogniser or a listener gets wrong in the output; its stream says of what: wer, cer, eer",
        ),
        Signal(
            "quality",
            "as logged",
            "a score of the output, better if higher; its stream says which: pesq, stoi, mos, sdr, similarity",
        ),
        Signal("skipped_clips", "clips", "clips left out so far because they could not be read"),
    ]
}


# Spellings of these signals in other programs: lower case, words joined by "_", without the split (train, eval, ...);
# of transformers, Lightning, fairseq, espnet, audiocraft, descript-audio-codec, AudioDec, ParallelWaveGAN,
# SpeechTokenizer, Amy and others. A plain loss is only ever "loss": facts decide whether it is a cross-entropy, never
# its name.
ALIASES = {
    "ce_nats": "ce cross_entropy crossentropy xent ce_loss cross_entropy_loss loss_ce nll nll_loss lm_ce",
    "loss": (
        "total_loss loss_total lm_loss avg_loss loss_avg average_loss mean_loss smooth_loss batch_loss "
        "running_loss combined_loss loss_sum loss_value current_loss global_loss tot_loss loss_tot closs verlust perte "
        "perdida"
    ),
    "accuracy_frac": (
        "accuracy acc token_accuracy mean_token_accuracy top1 top_1 acc1 top1_accuracy next_token_accuracy token_acc "
        "genauigkeit"
    ),
    "copy_frac": "copy_rate copy_ratio copied_frac",
    "counted_frac": "valid_label_frac valid_frac label_frac unmasked_frac",
    "entropy_nats": "entropy output_entropy pred_entropy prediction_entropy logits_entropy mean_entropy",
    "grad_norm": (
        "gradnorm gnorm gradient_norm grad_norm_total total_grad_norm total_norm global_norm global_grad_norm "
        "grad_2_0_norm_total grad_norm_g gnorm_g grad_norm_generator"
    ),
    "grad_norm/discriminator": "grad_norm_d gnorm_d grad_norm_discriminator disc_grad_norm",
    "clipped_frac": "clip_frac clip_fraction grad_clipped clipped clip clip_ratio grad_clip_frac",
    "learning_rate": (
        "lr learningrate learning_rate_0 lr_0 lr0 optim0_lr0 lr_group_0 current_lr last_lr lr_g lr_gen "
        "lr_generator learning_rate_g base_lr gen_lr g_lr lernrate"
    ),
    "learning_rate/discriminator": "lr_d lr_disc lr_discriminator learning_rate_d disc_lr d_lr",
    "used_frac": (
        "usage codebook_usage code_usage utilization codebook_utilization utilisation coverage vocab_coverage "
        "active_codes_frac"
    ),
    "perplexity": (
        "codebook_perplexity vq_perplexity quantizer_perplexity code_perplexity codebook_ppl vq_ppl rvq_perplexity"
    ),
    "d_real": "disc_real d_real_mean logits_real d_real_logits score_real",
    "d_fake": "disc_fake d_fake_mean logits_fake d_fake_logits score_fake d_gen",
    "loss_scale": "grad_scale grad_scaler amp_scale amp_scaler loss_scaler scaler",
    "padding_frac": "pad_frac padding_fraction padding_ratio",
    "step_s": "step_time time_per_step sec_per_step seconds_per_step train_time iter_time_s time_step batch_time dt_s",
    "optimizer_s": "optim_step_time optimizer_time optimizer_step_time",
    "error_frac/wer": "wer word_error_rate word_error",
    "error_frac/cer": "cer character_error_rate char_error_rate char_error",
    "error_frac/per": "phoneme_error_rate phone_error_rate",
    "error_frac/eer": "eer equal_error_rate",
    "quality/pesq": "pesq pesq_wb pesq_nb",
    "quality/stoi": "stoi estoi",
    "quality/mos": "mos utmos nisqa dnsmos dnsmos_ovrl",
    "quality/sdr": "sdr si_sdr sisdr si_snr sisnr nsdr snr",
    "quality/similarity": "speaker_similarity spk_sim secs sim_o speaker_sim cos_sim cosine_similarity cos_pct",
    "loss/text": "text_loss loss_text loss_txt txt_loss",
    "loss/audio": "audio_loss loss_audio speech_loss loss_speech acoustic_loss codec_loss_lm",
    "ce_nats/text": "text_ce ce_text loss_text_ce text_ce_loss",
    "ce_nats/audio": "audio_ce ce_audio loss_mel_ce mel_ce_loss",
    "accuracy_frac/text": "text_acc acc_text text_accuracy accuracy_text",
    "accuracy_frac/audio": "audio_acc acc_audio audio_accuracy accuracy_audio",
    "loss/loss_g": (
        "loss_g g_loss loss_gen gen_loss generator_loss loss_generator loss_g_total g_loss_total g_total_loss errg "
        "err_g generator_error gen_error generator_total gen_total"
    ),
    "loss/loss_d": (
        "loss_d d_loss loss_disc disc_loss discriminator_loss loss_discriminator d_loss_total adv_disc_loss errd "
        "err_d discriminator_error disc_error loss_dis dis_loss discriminator_total disc_total"
    ),
    "loss/adv_g": (
        "adv_g adv_g_loss loss_adv_g adv adv_loss loss_adv adversarial_loss adversarial adv_gen_loss gen_adv_loss "
        "g_adv_loss"
    ),
    "loss/feat": (
        "feat feat_loss loss_feat feature_loss feature_matching feature_matching_loss fm_loss loss_fm "
        "loss_feat_match adv_feat_loss fmap_loss loss_fmap fmaps loss_g_fm g_fm feature_matching_distance "
        "loss_fmaps"
    ),
    "loss/msspec": "msspec msspec_loss loss_msspec multi_scale_spec_loss",
    "loss/mel": "mel mel_loss loss_mel mel_spectrogram_loss mel_error mel_spec_error",
    "loss/stft": "stft stft_loss loss_stft multi_res_stft_loss spectral_convergence_loss log_stft_magnitude_loss",
    "loss/waveform": "waveform_loss wave_loss loss_wav l1_wav",
    "loss/llm": "llm llm_loss loss_llm llm_distill_loss",
    "loss/wavlm": "wavlm wavlm_loss loss_wavlm distill_loss loss_distill distillation_loss semantic_distill_loss",
    "loss/vq_codebook": "codebook_loss vq_codebook_loss",
    "loss/commitment": (
        "commitment commit commit_loss commitment_loss loss_commit loss_commitment vq_commitment_loss vq_loss "
        "loss_vq quantization_loss"
    ),
}
