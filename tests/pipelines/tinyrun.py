"""A recipe over a tiny network and handwritten digits: a whole run in seconds."""

NETS = '''
from torch import nn

class Tiny(nn.Module):
    def __init__(self, num_classes=10, in_chans=1):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(in_chans, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, num_classes)

    def forward(self, x):
        return self.head(self.b(self.a(x)).mean((2, 3)))

def rgb(num_classes=10):
    return Tiny(num_classes, 3)

def three(in_chans=1):
    return Tiny(3, in_chans)
'''
TEXT = """\
name: tiny
model: tinynets:Tiny
data: digits
seed: 1
train: {epochs: 2, batch_size: 64}
steps:
  - prune.l1_norm: {macs: 50%}
  - distill.kd: {temperature: 4.0, epochs: 1}
  - quantize.minmax
budget: {macs: 55%, max_drop: 50}
"""
