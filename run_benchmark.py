#!/usr/bin/env python
"""Entry point of the benchmark; `python run_benchmark.py --help` says what it can do."""

import sys

from bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
