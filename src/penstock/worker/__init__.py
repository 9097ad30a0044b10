"""The warm worker: Prefect's own worker machinery, but a run starts in a fork of a process that has imported all.

Prefect finds the worker type `penstock` by the entry point `prefect.collections`.
"""

from penstock.worker.warm import PenstockWorker

__all__ = ["PenstockWorker"]
