"""Data sets: one file each, with a function `load() -> Dataset`; the file name is the data set's name."""
