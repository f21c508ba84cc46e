"""The miniature: three competing domains, a small policy and a small reward model, built on the spot.

`python -m mgs_trl.study.miniature` builds it once; `build_miniature` is the same from python.
"""

from mgs_trl.study.miniature.build import build_miniature, miniature_dir

__all__ = ["build_miniature", "miniature_dir"]
