"""The 22 datasets of MESS, the multi-domain benchmark, by its own package ``mess-benchmark``.

The package registers its names when it is imported: 39 of them, all semantic, such as
``suim_sem_seg_test``, below the same root as ours. It writes into detectron2's catalogs when it
finds all of detectron2 that it uses, else into catalogs of its own; from there they are taken over.
"""

import importlib
import importlib.util
import logging

from detectron2.data import DatasetCatalog, MetadataCatalog

_LOGGER = logging.getLogger(__name__)


def register_mess() -> list[str]:
    """Register the datasets of an installed ``mess-benchmark``; returns their names.

    Nothing is registered where the package is absent, nor, with a warning, where it fails to
    import. Importing it takes some 10 ms and reads no dataset.
    """
    package = importlib.util.find_spec("mess")
    if package is None or package.origin is None:  # a plain folder of that name has no origin
        return []
    known = set(DatasetCatalog.list())
    try:
        importlib.import_module("mess.datasets")
        catalogs = importlib.import_module("mess.utils.catalog")
    except ImportError as error:
        _LOGGER.warning(
            "the installed package 'mess' has no datasets to register (%s); if it is meant to be "
            "the MESS benchmark, reinstall it with: pip install mess-benchmark",
            error,
        )
        return []
    for name in catalogs.DatasetCatalog.list():
        if name not in DatasetCatalog.list():
            DatasetCatalog.register(name, catalogs.DatasetCatalog[name])
            metadata = catalogs.MetadataCatalog.get(name).as_dict()
            MetadataCatalog.get(name).set(**metadata)
    return [name for name in DatasetCatalog.list() if name not in known]
