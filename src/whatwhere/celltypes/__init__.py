"""Cell types: barcodes of what neurons compute, put into types, with their stability over refits."""

from whatwhere.celltypes.barcodes import (
    WITH_BARCODES,
    MapStatistics,
    barcodes_of,
    measured_maps,
    model_barcodes,
    model_signs,
    network_barcodes,
    network_signs,
)
from whatwhere.celltypes.finding import CellTypes, find_types
from whatwhere.celltypes.folder import RunTypes, types_of_run
from whatwhere.celltypes.matching import MatchedMaps, match_centres, match_maps
from whatwhere.celltypes.options import TypeOptions
from whatwhere.celltypes.stability import Stability, agreement, stability_of

__all__ = [
    "WITH_BARCODES",
    "CellTypes",
    "MapStatistics",
    "MatchedMaps",
    "RunTypes",
    "Stability",
    "TypeOptions",
    "agreement",
    "barcodes_of",
    "find_types",
    "match_centres",
    "match_maps",
    "measured_maps",
    "model_barcodes",
    "model_signs",
    "network_barcodes",
    "network_signs",
    "stability_of",
    "types_of_run",
]
