"""Architectures: one file each, with `build(channels, size, classes) -> nn.Module`; the file name is the name.

`channels` and `size` describe the input `[batch, channels, size, size]`. The network returns logits
`[batch, classes]` and draws its initial weights from torch's global generator, as torch's layers do.

A file may publish `LAYERS`: the names of the modules that "the last k layers" counts (EU-k, CF-k), written out in the
order they run. Without it every convolution and linear layer counts, in the order they run.
"""
