"""Training: batches, losses, the trainer, and the torch backend."""

from showtell.training.history import EpochLog, read_log
from showtell.training.loader import LoadedBatch, Loader
from showtell.training.model import TorchBackend, open_backend
from showtell.training.result import TrainingResult
from showtell.training.start import Start
from showtell.training.trainer import train
from showtell.training.watcher import SilentWatcher, Watcher

__all__ = [
    "EpochLog",
    "LoadedBatch",
    "Loader",
    "SilentWatcher",
    "Start",
    "TorchBackend",
    "TrainingResult",
    "Watcher",
    "open_backend",
    "read_log",
    "train",
]
