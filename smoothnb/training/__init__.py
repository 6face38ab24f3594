from smoothnb.training.config import TrainConfig
from smoothnb.training.train import train
from smoothnb.training.trainer import Progress

__all__ = ["Progress", "TrainConfig", "train"]
