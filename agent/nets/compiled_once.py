"""Marks the body of an unrolled loop: torch.compile then compiles it once, not once a step."""

import torch

# No effect in eager mode, nor before the torch version it was tested with: there every step is
# compiled, which takes long. A body must not return views: Inductor (seen in 2.13) reuses their
# memory from the view's first element on, and writes beyond its end.
tested = torch.__version__ >= (2, 11)
compiled_once = torch.compiler.nested_compile_region if tested else lambda body: body
