"""What the fork server imports, once: everything a stage needs, and nothing that starts a thread."""

import pyarrow.csv  # noqa: F401
import quick_encoder  # noqa: F401
import simplejpeg  # noqa: F401
import small_job  # noqa: F401
import torch
import torch._dynamo
from PIL import Image

import mmdata.corpora.folder
import mmdata.encoders.device
import mmdata.fusion.align
import mmdata.fusion.train
import mmdata.fusion.trained
import mmdata.media.image
import mmdata.media.text  # noqa: F401

Image.init()
torch.set_num_threads(1)
