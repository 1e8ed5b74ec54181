"""What both projects need. Imports neither of them."""

import os

# Read when huggingface_hub is imported: TRL reports every trainer that is built. A value set by the user stays.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Read when transformers is imported: some architectures would fetch kernels, which are code, if `kernels` is installed.
os.environ.setdefault("USE_HUB_KERNELS", "NO")
