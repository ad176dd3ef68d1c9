"""`python -m simulsa`, which torchrun and `accelerate launch` start in several processes."""

import sys

from simulsa.cli import process

sys.exit(process())
