"""Architectures, one file for each family; every builder is a function with explicit keywords."""

from lilliput.zoo.autoencoder import autoencoder
from lilliput.zoo.building import create, input_dtype, input_shape, names, options_of, resolve
from lilliput.zoo.decoder import decoder
from lilliput.zoo.ds_cnn import ds_cnn
from lilliput.zoo.lenet import lenet5, lenet_300_100
from lilliput.zoo.mobilenet_v1 import mobilenet_v1
from lilliput.zoo.mobilenet_v2 import mobilenet_v2
from lilliput.zoo.phinet import phinet
from lilliput.zoo.resnet import resnet18, resnet50
from lilliput.zoo.resnet_cifar import resnet8, resnet20, resnet56
from lilliput.zoo.unet import unet
from lilliput.zoo.vgg import vgg11, vgg16
from lilliput.zoo.vit import vit_tiny

__all__ = ["autoencoder", "create", "decoder", "ds_cnn", "input_dtype", "input_shape", "lenet5", "lenet_300_100", "mobilenet_v1",
           "mobilenet_v2", "names", "options_of", "phinet", "resnet8", "resnet18", "resnet20", "resnet50", "resnet56", "resolve",
           "unet", "vgg11", "vgg16", "vit_tiny"]
