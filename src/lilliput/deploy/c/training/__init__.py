"""Training on the device: steps on biases and the classifier as generated C, and the same in numpy."""

from lilliput.deploy.c.training.project import TrainingProject, TrainingTrial, add_training, reference, train
from lilliput.deploy.c.training.trainer import State, Trainable, Trainer

__all__ = ["State", "Trainable", "Trainer", "TrainingProject", "TrainingTrial", "add_training", "reference", "train"]
