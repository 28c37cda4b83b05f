"""Summarise text in latent space: `from latent_summ import Summarizer`. Written by hand, but for the version, which nbdev keeps."""
import importlib
import os

__version__ = "0.1.0"
__all__ = ["Config", "Stage", "Summarizer", "__version__", "evaluate", "load_pairs", "run_pipeline"]

# For bf16 products on a CPU, oneDNN and torch's layer above it each keep a compiled kernel of about 1 MB for every one of the last 1,024 matrix shapes;
# batches of text have so many shapes that this alone takes gigabytes. Both read their bounds at the first such product, so they are set before any part
# of the package can compute one. (A program that has computed one before it imports this package sets them itself.)
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"): os.environ.setdefault(_name, "32")

# names of the package itself -> the module that is loaded when they are asked for
_HOMES = {"Config": ".config", "Stage": ".plan", "Summarizer": ".use.inference", "run_pipeline": ".train.stages",
          "load_pairs": ".data.sources", "evaluate": ".use.evaluate"}


def __getattr__(name: str):
    "The names of `_HOMES`, loaded at first use: `import latent_summ` alone takes no time and loads no torch."
    if name not in _HOMES: raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_HOMES)}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    importlib.import_module(".runtime", __name__).with_parameters(value) # comments on parameters, for `?`
    globals()[name] = value
    return value


def __dir__() -> list: return sorted({*globals(), *_HOMES})
