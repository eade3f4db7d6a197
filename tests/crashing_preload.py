"""What the fork server imports, once: everything a stage needs, and nothing that starts a thread."""

import quick_encoder  # noqa: F401
import small_job  # noqa: F401
import torch

torch.set_num_threads(1)
