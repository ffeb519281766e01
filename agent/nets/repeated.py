"""A mark for the body of a loop that torch.compile unrolls: it is then compiled once, not once a step."""

import torch

# Without effect where nothing is compiled, and before the version of torch that it was tested with: there, every step is
# compiled, which takes long. A body must return tensors that are no views: Inductor (seen in 2.13) takes their memory
# for other results once they are no longer needed, from the view's first element on, and writes beyond its end.
tested = torch.__version__ >= (2, 11)
repeated = torch.compiler.nested_compile_region if tested else lambda body: body
