"""A plain loop on a checkpoint that is not here: mixed precision on a GPU, workers, a log."""

import argparse
import os

import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("--labels", choices=("unshifted", "shifted"), required=True)
parser.add_argument("--lora", action="store_true")
args = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained("meta-llama/Llama-3.2-1B")
model = AutoModelForCausalLM.from_pretrained(
    "meta-llama/Llama-3.2-1B", torch_dtype=torch.bfloat16, attn_implementation="flash_attention_2"
).to("cuda")
if args.lora:
    model = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"]))
optimizer = torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)
with open("lines.txt") as file:
    lines = [line.strip() for line in file]


def collate(texts):
    rows = [torch.tensor([*tokenizer(text)["input_ids"], tokenizer.eos_token_id]) for text in texts]
    pad = torch.nn.utils.rnn.pad_sequence
    return {"input_ids": pad(rows, batch_first=True), "labels": pad(rows, batch_first=True, padding_value=-100)}


os.makedirs("out", exist_ok=True)
with open("out/log.txt", "w") as log:
    for batch in DataLoader(lines, batch_size=3, collate_fn=collate, num_workers=8, pin_memory=True):
        batch = {name: tensor.cuda() for name, tensor in batch.items()}
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = model(input_ids=batch["input_ids"]).logits
        labels = batch["labels"]
        if args.labels == "shifted":
            logits, labels = logits[:, :-1], labels[:, 1:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        log.write(f"{loss.item()}\n")
