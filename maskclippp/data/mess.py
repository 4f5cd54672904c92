"""The 22 datasets of the multi-domain benchmark MESS, registered by its package ``mess-benchmark``.

Importing the package registers 39 semantic datasets, such as ``suim_sem_seg_test``, below the same
root as ours: in detectron2's catalogs if all of detectron2 is installed that the package uses,
otherwise in its own catalogs, whose entries we copy.
"""

import importlib
import importlib.util
import logging

from detectron2.data import DatasetCatalog, MetadataCatalog

_LOGGER = logging.getLogger(__name__)


def register_mess() -> list[str]:
    """Register the datasets of an installed ``mess-benchmark``; returns their names.

    Registers nothing if the package is not installed or, with a warning, if its import fails. The
    import takes about 10 ms and reads no dataset.
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
            "cannot import the datasets of the installed package 'mess' (%s); if it should be the "
            "MESS benchmark, reinstall it with: pip install mess-benchmark",
            error,
        )
        return []
    for name in catalogs.DatasetCatalog.list():
        if name not in DatasetCatalog.list():
            DatasetCatalog.register(name, catalogs.DatasetCatalog[name])
            metadata = catalogs.MetadataCatalog.get(name).as_dict()
            MetadataCatalog.get(name).set(**metadata)
    return [name for name in DatasetCatalog.list() if name not in known]
