"""Integer operators: what the generated C code can do, each in numpy and as a call of a kernel in `csrc/mcu`."""

from lilliput.deploy.c.operators import sub_byte
from lilliput.deploy.c.operators.base import Buffer, Call, Operator
from lilliput.deploy.c.operators.convolution import Convolution, TransposedConvolution
from lilliput.deploy.c.operators.elementwise import Add, Multiply, Table, rescaling
from lilliput.deploy.c.operators.in_place import InPlaceDepthwise, InPlacePointwise
from lilliput.deploy.c.operators.matmul import MatMul
from lilliput.deploy.c.operators.move import Copy, Move, Place
from lilliput.deploy.c.operators.normalisation import Normalisation
from lilliput.deploy.c.operators.pooling import AveragePool, MaxPool
from lilliput.deploy.c.operators.softmax import Softmax
from lilliput.deploy.c.operators.window import Window

__all__ = ["Add", "AveragePool", "Buffer", "Call", "Convolution", "Copy", "InPlaceDepthwise", "InPlacePointwise", "MatMul", "MaxPool", "Move",
           "Multiply", "Normalisation", "Operator", "Place", "Softmax", "Table", "TransposedConvolution", "Window", "rescaling", "sub_byte"]
