"""The warehouse: rows and object markers, written in one transaction."""

from penstock.warehouse.base import LoadPart, LoadResult, QueryResult, Warehouse
from penstock.warehouse.duckdb import DuckDBWarehouse

__all__ = ["DuckDBWarehouse", "LoadPart", "LoadResult", "QueryResult", "Warehouse"]
