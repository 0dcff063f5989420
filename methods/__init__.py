"""Unlearning methods: one file, one class, one method; the file name is its name, `_` marks a helper."""
