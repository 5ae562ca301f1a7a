"""From disk to `Batch`: audio, codes, windows, text, patterns, masks, batch."""
