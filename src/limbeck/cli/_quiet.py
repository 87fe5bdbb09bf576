"""Libraries that chatter are hushed, so that our own lines can be read. Their errors still come through."""

from __future__ import annotations

import logging
import os

_ON_IMPORT = ("torchao", "torch.utils._pytree")
"""Where it is installed, transformers imports torchao, which tells of kernels for GPUs that it cannot load."""


def quiet_imports() -> None:
    """Before any of them is imported: no advice about what is missing."""
    for name in _ON_IMPORT:
        logging.getLogger(name).setLevel(logging.ERROR)


def quiet_libraries() -> None:
    """No progress bars and advice of transformers and datasets; warnings stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    datasets.utils.logging.disable_progress_bar()
