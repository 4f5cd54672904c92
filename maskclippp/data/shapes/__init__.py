"""The built-in `shapes` world: drawn scenes with exact annotation, so that nothing is downloaded.

`vocabulary` has the words, `scenes` draws, `captions` describes (for pre-training), `dataset`
registers `shapes_train`, `shapes_val` and two more, and `weights/` holds the small CLIP that
`shapes/pretrain_clip.py` made.
"""

from maskclippp.data.shapes.dataset import register_shapes

__all__ = ["register_shapes"]
