"""Architectures: one file each, with `build(channels, size, classes) -> nn.Module`; the file name is the name.

`channels` and `size` describe the input `[batch, channels, size, size]`. The network returns logits
`[batch, classes]` and draws its initial weights from torch's global generator, as torch's layers do.
"""
