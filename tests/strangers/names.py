"""Logs in the formats and with the names of trainers in use. All are healthy unless their expectation says more; every
curve is made up.
"""

import json
import math

import numpy as np

from tests.strangers.curves import Files, Logs, about, csv, every, fall, flat, rows

LOGS = Logs()
N = 60
STEPS = range(10, 610, 10)
RATE = [1e-4] * N


def _lm(rng: np.random.Generator, start: float = 8.0, end: float = 4.1) -> np.ndarray:
    return fall(rng, N, start, about(rng, end, 0.03), 0.02)


def _wandering(rng: np.random.Generator, level: float) -> list[float]:
    """A gradient norm, or whatever goes up and down about a level."""
    return (level * np.exp(0.1 * rng.standard_normal(N))).tolist()


@LOGS.add
def acestep(rng: np.random.Generator) -> Files:
    loss = fall(rng, N, 0.92, about(rng, 0.76), 0.015)
    return {
        "acestep.csv": csv("step,train/loss,train/lr,train/epoch_loss", STEPS, loss, RATE, loss + flat(rng, N, 0, 0.01))
    }


@LOGS.add
def cosyvoice_console(rng: np.random.Generator) -> Files:
    lines = []
    for i, (loss, norm) in enumerate(rows(_lm(rng, 4.2, 2.8), _wandering(rng, 1.2))):
        head = f"2026-11-01 10:{i:02d}:00,123"
        lines.append(
            f"{head} DEBUG TRAIN Batch 0/{10 * (i + 1)} loss {loss:.6f} acc {0.1 + 0.003 * i:.6f} lr 0.00001000 "
            f"grad_norm {norm:.6f} rank 0\n"
        )
    lines.append("2026-11-01 11:00:00,123 INFO Epoch 0 Step 601 CV info lr 1e-05 0 rank loss 2.9 acc 0.27\n")
    return {"console.log": "".join(lines)}


@LOGS.add
def cosyvoice_tb(rng: np.random.Generator) -> Files:
    loss = _lm(rng, 4.2, 2.8)
    accuracy = (0.1 + 0.003 * np.arange(N)).tolist()
    cv, cv_accuracy = every(N, 10, (loss[9::10] + 0.1).tolist()), every(N, 10, [a * 0.8 for a in accuracy[9::10]])
    names = "step,TRAIN/epoch,TRAIN/lr,TRAIN/grad_norm,TRAIN/loss,TRAIN/acc,CV/loss,CV/acc"
    columns = [[0] * N, [1e-5] * N, _wandering(rng, 1.2), loss, accuracy, cv, cv_accuracy]
    return {"cosyvoice_tb.csv": csv(names, STEPS, *columns)}


@LOGS.add
def dac_tb(rng: np.random.Generator) -> Files:
    mel, stft, wave = (
        fall(rng, N, 2.0, about(rng, 1.0), 0.02),
        fall(rng, N, 3.0, 2.0, 0.03),
        fall(rng, N, 0.1, 0.05, 1e-3),
    )
    adversary, features, critic = (
        fall(rng, N, 2.0, 3.0, 0.03),
        fall(rng, N, 3.0, 4.0, 0.04),
        fall(rng, N, 6.0, 4.0, 0.05),
    )
    commitment, codebook = fall(rng, N, 1.0, 1.2, 0.015), fall(rng, N, 1.0, 1.2, 0.015)
    total = 15 * mel + stft + adversary + 2 * features + codebook + 0.25 * commitment
    names = (
        "step,adv/gen_loss/train,adv/feat_loss/train,adv/disc_loss/train,mel/loss/train,stft/loss/train,"
        "waveform/loss/train,vq/commitment_loss/train,vq/codebook_loss/train,loss/train,other/learning_rate/train,"
        "other/grad_norm/train"
    )
    columns = [adversary, features, critic, mel, stft, wave, commitment, codebook, total, RATE, _wandering(rng, 5)]
    return {"dac_tb.csv": csv(names, STEPS, *columns)}


@LOGS.add
def encodec_audiocraft(rng: np.random.Generator) -> Files:
    critic, adversary, features = (
        fall(rng, N, 1.98, 1.58, 0.02),
        fall(rng, N, 0.29, 0.5, 0.02),
        fall(rng, N, 0.29, 0.5, 0.02),
    )
    l1, mel, spectrum = (
        fall(rng, N, 0.1, 0.05, 8e-4),
        fall(rng, N, 1.37, about(rng, 0.91), 0.02),
        fall(rng, N, 1.4, 0.9, 0.02),
    )
    names = (
        "step,train/g_loss,train/d_loss,train/d_msstftd,train/adv,train/feat,train/l1,train/mel,train/msspec,"
        "train/penalty,train/bandwidth,train/ratio1,train/adv_msstftd,train/feat_msstftd"
    )
    columns = [mel + spectrum + adversary, critic, critic, adversary, features, l1, mel, spectrum, l1 + 2e-3]
    columns += [[6.0] * N, [1.0] * N, adversary, features]
    return {"encodec.csv": csv(names, STEPS, *columns)}


@LOGS.add
def espnet_speechlm(rng: np.random.Generator) -> Files:
    lines = []
    for i, (ar, nar, norm) in enumerate(rows(_lm(rng, 5, 3), fall(rng, N, 4, 3, 0.02), _wandering(rng, 1.2))):
        lines.append(
            f"[host] 2026-11-01 10:{i:02d}:00,000 (trainer:760) INFO: 1epoch:train:{10 * i + 1}-{10 * i + 10}batch: "
            f"iter_time=0.001, forward_time=0.12, loss={ar + nar:.3f}, loss_ar={ar:.3f}, loss_nar={nar:.3f}, "
            f"acc_layer0={0.1 + 0.002 * i:.3f}, acc_layer7={0.05 + 0.001 * i:.3f}, acc={0.1 + 0.002 * i:.3f}, "
            f"backward_time=0.2, grad_norm={norm:.3f}, clip=100.000, loss_scale=1.0, optim_step_time=0.02, "
            "optim0_lr0=2.0e-04, train_time=0.5\n"
        )
    return {"train.log": "".join(lines)}


@LOGS.add
def f5tts(rng: np.random.Generator) -> Files:
    duration = fall(rng, N, 0.5, 0.21, 0.03)
    return {
        "f5tts.csv": csv(
            "step,loss,lr,duration loss", STEPS, fall(rng, N, 1.2, about(rng, 0.7), 0.03), [7.5e-5] * N, duration
        )
    }


@LOGS.add
def gptsovits_s1(rng: np.random.Generator) -> Files:
    loss, accuracy = fall(rng, N, 900, about(rng, 505), 1), (0.3 + 0.01 * np.arange(N)).tolist()
    names = "step,total_loss_step,total_loss_epoch,lr,lr_step,top_3_acc_step,top_3_acc_epoch"
    rate = [0.002] * N
    return {"s1.csv": csv(names, STEPS, loss, loss + flat(rng, N, 0, 0.02), rate, rate, accuracy, accuracy)}


@LOGS.add
def hf_console(rng: np.random.Generator) -> Files:
    lines = [
        f"{{'loss': {loss:.4f}, 'grad_norm': {norm:.4f}, 'learning_rate': 0.0001, 'epoch': {(i + 1) / N:.2f}}}\n"
        for i, (loss, norm) in enumerate(rows(_lm(rng, 6, 4.5), _wandering(rng, 1.2)))
    ]
    return {"console.log": "".join(lines)}


def _higgs(rng: np.random.Generator, start: float, end: float) -> str:
    lines = []
    text = fall(rng, N, 1.0, 0.02, 0) * np.exp(0.2 * rng.standard_normal(N))
    for i, (audio, llm) in enumerate(rows(fall(rng, N, start, end, 0), text)):
        parts = audio * np.exp(0.004 * rng.standard_normal(8))
        lines += [f"Codebook {k} loss: {part}\n" for k, part in enumerate(parts)]
        total = parts.mean()
        lines.append(
            f"Audio loss computed: {total}, device: cuda:0\nFinal loss: {total}, device: cuda:0\n"
            f"LLM loss: {llm}\nAudio loss: {total}\n"
        )
        if i % 5 == 4:
            epoch = 5 * (i + 1) / N
            lines.append(f"{{'loss': {total:.4f}, 'grad_norm': 0.23, 'learning_rate': 1e-05, 'epoch': {epoch:.2f}}}\n")
    return "".join(lines)


@LOGS.add
def higgs_jimmy_console(rng: np.random.Generator) -> Files:
    return {"console.log": _higgs(rng, 6.5, about(rng, 5.0))}


@LOGS.add
def higgs_jimmy_unshifted(rng: np.random.Generator) -> Files:
    """The same with labels that are not shifted: the model copies its input."""
    return {"console.log": _higgs(rng, 6.5, about(rng, 0.003))}


@LOGS.add
def moshi_console(rng: np.random.Generator) -> Files:
    lines = []
    for i, loss in enumerate(_lm(rng, 4.2, 3.1)):
        step, head = 10 * (i + 1), f"2026-11-01 10:{i:02d}:00 (UTC) - 0:{i:02d}:00 - train - INFO - "
        lines.append(
            f"{head}step: {step:06d} - done (%): {step / 6:.1f} - loss: {loss:.3f} - lr: 2.0e-06 - peak_alloc_mem "
            "(GB): 40.1 "
            "- alloc_mem (GB): 30.2 - words_per_second: 1234.5 - avg_words_per_second: 1200.1 - ETA: >2026-11-01 "
            "11:00:00\n"
        )
        if i % 10 == 9:
            held_out = loss + 0.2
            lines.append(
                f"{head}step: {step:06d} - eval_perplexity: {2**held_out:.3f} - eval_loss: {held_out:.3f} - "
                f"train_loss: {loss:.3f} - text_eval_loss: {0.3 * held_out:.3f} - audio_eval_loss: "
                f"{0.7 * held_out:.3f}\n"
            )
    return {"console.log": "".join(lines)}


@LOGS.add
def moshi_metrics(rng: np.random.Generator) -> Files:
    lines = []
    for i, loss in enumerate(_lm(rng, 4.2, 3.1).tolist()):
        row = {"lr": 2e-6, "step": 10 * (i + 1), "loss": loss, "prob_real_tokens": 0.8, "percent_done": (i + 1) / 0.6}
        row |= {
            "peak_allocated_mem": 40.0,
            "allocated_mem": 30.0,
            "wps": 1234.5,
            "avg_wps": 1200.0,
            "eta_in_seconds": 100.0,
        }
        lines.append(json.dumps(row) + "\n")
        if i % 10 == 9:
            held_out = loss + 0.2
            parts = {"text_eval_loss": 0.3 * held_out, "audio_eval_loss": 0.7 * held_out}
            evaluated = {"step": 10 * (i + 1), "train_loss": loss, "perplexity": 2**held_out, "eval_loss": held_out}
            lines.append(json.dumps(evaluated | parts) + "\n")
    return {"metrics.jsonl": "".join(lines)}


@LOGS.add
def musicgen(rng: np.random.Generator) -> Files:
    ce = _lm(rng, 6, 4.0)
    parts = [ce + offset + flat(rng, N, 0, 0.02) for offset in (-1, 0, 0.4, 0.6)]
    held_out = every(N, 20, (ce[19::20] + 0.15).tolist())
    names = (
        "step,train/ce,train/ppl,train/ce_q1,train/ce_q2,train/ce_q3,train/ce_q4,train/ppl_q1,train/lr,train/grad_norm,"
        "train/grad_scale,valid/ce,valid/ppl"
    )
    ppl = [None if value is None else math.exp(value) for value in held_out]
    columns = [ce, np.exp(ce), *parts, np.exp(parts[0]), RATE, _wandering(rng, 1), [1024] * N, held_out, ppl]
    return {"musicgen.csv": csv(names, STEPS, *columns)}


@LOGS.add
def nanotron(rng: np.random.Generator) -> Files:
    lines = [
        f"11/01/2026 10:{i:02d}:00 [INFO|DP=0|PP=0|TP=0]: iteration: {10 * (i + 1)} / 600 | consumed_tokens: "
        f"{10 * (i + 1)}K | "
        f"time_per_iteration_ms: 1.2K | tokens_per_sec: 5K | tokens_per_sec_per_gpu: 5K | global_batch_size: 32 | "
        f"lm_loss: {loss:.3g} | lr: 0.0001 | model_tflops_per_gpu: 100 | grad_norm: {norm:.3g}\n"
        for i, (loss, norm) in enumerate(rows(_lm(rng), _wandering(rng, 1.2)))
    ]
    return {"nanotron.log": "".join(lines)}


@LOGS.add
def nemo2_console(rng: np.random.Generator) -> Files:
    lines = [
        f"Training epoch 0, iteration {10 * i + 9}/599 | lr: 0.0001 | global_batch_size: 32 | global_step: "
        f"{10 * i + 9} | "
        f"reduced_train_loss: {loss:.4f} | train_step_timing in s: 1.234 | consumed_samples: {320 * (i + 1)}\n"
        for i, loss in enumerate(_lm(rng))
    ]
    return {"console.log": "".join(lines)}


@LOGS.add
def olmocore(rng: np.random.Generator) -> Files:
    ce = _lm(rng)
    names = (
        "step,train/CE loss,train/PPL,optim/total grad norm,optim/LR (group 0),throughput/device/TPS,"
        "system/GPU active mem (GiB),train/Z loss,optim/step skipped,train/spike score"
    )
    columns = [
        ce,
        np.exp(ce),
        _wandering(rng, 1.2),
        RATE,
        [5432] * N,
        [12.0] * N,
        _wandering(rng, 1e-4),
        [0] * N,
        [0.0] * N,
    ]
    return {"olmocore.csv": csv(names, STEPS, *columns)}


@LOGS.add
def orpheus_pretrain(rng: np.random.Generator) -> Files:
    columns = [fall(rng, N, 5.0, about(rng, 4.2, 0.03), 0.03), STEPS, fall(rng, N, 3.0, 2.6, 0.02), STEPS]
    return {"orpheus.csv": csv("step,audio_loss,audio_step,text_loss,text_step", STEPS, *columns)}


@LOGS.add
def speechbrain(rng: np.random.Generator) -> Files:
    lines = [
        f"epoch: {i + 1}, lr: 1.00e-04 - train loss: {a:.2e} - valid loss: {b:.2e}, valid WER: {100 - i}\n"
        for i, (a, b) in enumerate(rows(fall(rng, N, 3.0, about(rng, 2.0), 0.02), fall(rng, N, 3.0, 2.2, 0.02)))
    ]
    return {"train_log.txt": "".join(lines)}


@LOGS.add
def stableaudio_dit(rng: np.random.Generator) -> Files:
    loss = fall(rng, N, 1.0, about(rng, 0.79), 0.02)
    names = "step,train/loss,train/std_data,train/lr,train/mse_loss,val/avg_loss,val/loss_0.1,val/loss_0.5,val/loss_0.9"
    held_out = [every(N, 10, (loss[9::10] + offset).tolist()) for offset in (0.01, -0.1, 0.0, 0.1)]
    columns = [loss, [1.0] * N, [5e-5] * N, loss + flat(rng, N, 0, 0.02), *held_out]
    return {"stableaudio.csv": csv(names, STEPS, *columns)}


@LOGS.add
def swift_logging(rng: np.random.Generator) -> Files:
    lines = []
    for i, (loss, norm) in enumerate(rows(_lm(rng, 9, 7.05).tolist(), _wandering(rng, 1.2))):
        row = {
            "loss": loss,
            "token_acc": 0.1 + 0.002 * i,
            "grad_norm": norm,
            "learning_rate": 1e-5,
            "memory(GiB)": 40.1,
        }
        row |= {"train_speed(s/it)": 1.2, "epoch": (i + 1) / N, "global_step/max_steps": f"{10 * (i + 1)}/600"}
        row |= {"percentage": f"{(i + 1) / 0.6:.2f}%", "elapsed_time": "1m 2s", "remaining_time": "3m"}
        lines.append(json.dumps(row) + "\n")
    return {"logging.jsonl": "".join(lines)}


@LOGS.add
def llamafactory_log(rng: np.random.Generator) -> Files:
    lines = [
        json.dumps(
            {
                "current_steps": 10 * (i + 1),
                "total_steps": 600,
                "loss": loss,
                "lr": 1e-5,
                "epoch": (i + 1) / N,
                "percentage": (i + 1) / 0.6,
            }
        )
        + "\n"
        for i, loss in enumerate(_lm(rng, 4, 2.5).tolist())
    ]
    return {"trainer_log.jsonl": "".join(lines)}


@LOGS.add
def torchtitan_console(rng: np.random.Generator) -> Files:
    lines = [
        f"[titan] 2026-11-01 10:{i:02d}:00,000 - root - INFO - step: {10 * (i + 1)}  loss:  {loss:.4f}  "
        f"grad_norm:  {norm:.4f}  "
        "memory: 12.3GiB(13.1%)  tps: 5,432  tflops: 120.12  mfu: 12.3%\n"
        for i, (loss, norm) in enumerate(rows(_lm(rng), _wandering(rng, 1.2)))
    ]
    return {"console.log": "".join(lines)}


@LOGS.add
def torchtitan_tb(rng: np.random.Generator) -> Files:
    loss = _lm(rng)
    names = (
        "step,loss_metrics/global_avg_loss,loss_metrics/global_max_loss,grad_norm,throughput(tps),tflops,mfu(%),"
        "time_metrics/end_to_end(s),time_metrics/data_loading(s),memory/max_active(GiB),memory/num_alloc_retries,"
        "memory/num_ooms,lr"
    )
    columns = [
        loss,
        loss + 0.2,
        _wandering(rng, 1.2),
        [5432] * N,
        [120] * N,
        [12] * N,
        [1.2] * N,
        [0.01] * N,
        [12.3] * N,
    ]
    return {"torchtitan_tb.csv": csv(names, STEPS, *columns, [0] * N, [0] * N, RATE)}


@LOGS.add
def trl_sft(rng: np.random.Generator) -> Files:
    lines = []
    for i, (loss, norm) in enumerate(rows(_lm(rng, 5, 4.2).tolist(), _wandering(rng, 1.2))):
        row = {"step": 10 * (i + 1), "loss": loss, "grad_norm": norm, "learning_rate": 1e-4, "entropy": loss + 0.05}
        row |= {"num_tokens": 1e5 * (i + 1), "mean_token_accuracy": 0.1 + 0.002 * i, "epoch": (i + 1) / N}
        lines.append(json.dumps(row) + "\n")
    return {"trl.jsonl": "".join(lines)}


@LOGS.add
def unsloth_table(rng: np.random.Generator) -> Files:
    lines = [f"{10 * (i + 1)}\t{loss:.6f}\n" for i, loss in enumerate(_lm(rng, 6, 4.5))]
    return {"table.tsv": "Step\tTraining Loss\n" + "".join(lines)}
