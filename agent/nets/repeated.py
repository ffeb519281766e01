"""A mark for the body of a loop that torch.compile unrolls: it is then compiled once, not once a step."""

import torch

# Without effect where nothing is compiled; torch 2.7 does not have it and compiles every step.
# A body must return tensors that are no views: Inductor (seen in 2.13) takes their memory for other results once
# they are no longer needed, from the view's first element on, and writes beyond its end.
repeated = getattr(torch.compiler, "nested_compile_region", lambda body: body)
