"""Datasets, mappers and loaders. Importing this package registers every dataset, reading none."""

from maskclippp.data.builtin import register_builtin
from maskclippp.data.layout import datasets_root
from maskclippp.data.mess import register_mess
from maskclippp.data.shapes import register_shapes

register_builtin(datasets_root())
register_shapes()
register_mess()
