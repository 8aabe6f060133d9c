"""Training: batches, losses, the trainer, and the torch backend."""

from showtell.training.model import TorchBackend, open_backend
from showtell.training.result import TrainingResult
from showtell.training.trainer import train
from showtell.training.watcher import SilentWatcher, Watcher

__all__ = ["SilentWatcher", "TorchBackend", "TrainingResult", "Watcher", "open_backend", "train"]
