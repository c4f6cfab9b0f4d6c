"""Stochastic layers: conditional distributions over vectors as Keras layers."""

from rws_keras.arrays import BINARY, REAL, Support
from rws_keras.layers.arsbn import ARSBN, AutoregressiveBernoulli
from rws_keras.layers.bernoulli import BinaryDistribution
from rws_keras.layers.choices import Choices
from rws_keras.layers.distribution import NoiseDrivenDistribution
from rws_keras.layers.dsbn import DSBN
from rws_keras.layers.gaussian import DiagonalGaussian, Gaussian
from rws_keras.layers.made import MADE, MaskedAutoregressiveBernoulli
from rws_keras.layers.nade import NADE, NeuralAutoregressiveBernoulli
from rws_keras.layers.noise import uniform_noise
from rws_keras.layers.pixelcnn import ConvolutionalAutoregressiveBernoulli, PixelCNN
from rws_keras.layers.registry import FAMILIES, get, label, label_of, register_family
from rws_keras.layers.sbn import SBN, FactorizedBernoulli
from rws_keras.layers.stack import Stack
from rws_keras.layers.stochastic_layer import StochasticLayer

__all__ = [
    "ARSBN",
    "BINARY",
    "DSBN",
    "FAMILIES",
    "MADE",
    "NADE",
    "REAL",
    "SBN",
    "AutoregressiveBernoulli",
    "BinaryDistribution",
    "Choices",
    "ConvolutionalAutoregressiveBernoulli",
    "DiagonalGaussian",
    "FactorizedBernoulli",
    "Gaussian",
    "MaskedAutoregressiveBernoulli",
    "NeuralAutoregressiveBernoulli",
    "NoiseDrivenDistribution",
    "PixelCNN",
    "Stack",
    "StochasticLayer",
    "Support",
    "get",
    "label",
    "label_of",
    "register_family",
    "uniform_noise",
]
