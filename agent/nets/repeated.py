"""A mark for the body of a loop that torch.compile unrolls: it is then compiled once, not once a step."""

import torch

# Without effect where nothing is compiled; torch 2.7 does not have it and compiles every step.
repeated = getattr(torch.compiler, "nested_compile_region", lambda body: body)
