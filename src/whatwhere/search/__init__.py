"""Searches over options and strengths: grid, random or TPE, on one machine or many, resumable, each point once."""

from whatwhere.search.point import Failed, Fitted, Pruned, RecordingFile
from whatwhere.search.pools import dask_pool, local_pool
from whatwhere.search.searcher import SearchPlan, SearchProgress, SearchTick
from whatwhere.search.searching import SearchOptions, SearchResult, search
from whatwhere.search.space import Choice, Range, Space, make_space, read_space

__all__ = [
    "Choice",
    "Failed",
    "Fitted",
    "Pruned",
    "Range",
    "RecordingFile",
    "SearchOptions",
    "SearchPlan",
    "SearchProgress",
    "SearchResult",
    "SearchTick",
    "Space",
    "dask_pool",
    "local_pool",
    "make_space",
    "read_space",
    "search",
]
