"""Which logits each label is scored on, and which inputs these logits have seen: for any PyTorch model, batch and loss.

`record` runs the user's own loss once and writes down what it reads (lookups of ids in tables), where it scores
(`scores`: the gradient of a cross-entropy has one negative entry in a row of logits, and that is the label), and the
calls of loss functions with their lines. `match` finds the place at which a label's own token is an input. `sight`
changes inputs near such places and looks which rows of logits move. `read` puts the answers together, stream by stream.
"""
