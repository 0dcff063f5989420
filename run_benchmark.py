#!/usr/bin/env python
"""Entry point of the benchmark; `python run_benchmark.py --help` says what it can do."""

import sys

try:
    from bench.cli import main
except KeyboardInterrupt:  # before anything was begun
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
