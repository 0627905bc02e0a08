"""Weights that several layers share: quantized once, by one quantizer, in training too, and deployed as one constant."""

import numpy as np
import onnx
import pytest
import torch
from quantize_nets import Arrays, ArraySplit, arrays
from torch import nn

from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import open_session
from lilliput.quantize import LSQ, Aware, Bits, Fixed, Quantizer, Scheme, StraightThrough, equip, exact, minmax, prepare, settle_
from lilliput.train import SGD, Fit, fit


class Tied(nn.Module):
    """Two linear layers with one weight, under both names."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(torch.relu(self.b(torch.relu(self.a(x)))))


class Language(nn.Module):
    """A head that shares the embedding, as in GPT-2."""

    def __init__(self):
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(torch.tanh(self.body(self.embed(ids))))


def _weights(network):
    return {module.layer: module for module in network.modules() if isinstance(module, Quantizer) and module.weight}


@pytest.mark.parametrize("estimator", [StraightThrough(), LSQ()])
def test_one_quantizer_trains_for_both(estimator):
    torch.manual_seed(0)
    network, _ = equip(Tied(), arrays(6), Scheme(), estimator=estimator)
    assert sorted(_weights(network)) == ["b", "head"]  # torch traces the tensor under its last name
    quantizer, calls = _weights(network)["b"], []
    handle = quantizer.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0].shape))
    network.train()(torch.randn(8, 6)).sum().backward()
    handle.remove()
    assert calls == [(6, 6)]
    layers = [node for node in network.graph.nodes if node.target is torch.ops.aten.linear.default]
    assert layers[0].args[1] is layers[1].args[1]
    trained = fit(network, arrays(6), Fit(epochs=2, batch_size=16, optimizer=SGD(lr=0.05)), hooks=(Aware(),), progress=False).model
    settle_(trained)
    weight = trained.tensor("b.weight").detach()
    assert not torch.equal(weight, network.tensor("b.weight"))
    layers = [node for node in trained.graph.nodes if node.target is torch.ops.aten.linear.default]
    assert layers[0].args[1] is layers[1].args[1]
    codes = _weights(trained)["b"](weight) / _weights(trained)["b"].scale.detach()[:, None]
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-3)


def test_an_embedding_has_the_bits_and_the_scales_of_the_layer_it_is():
    data = Arrays(ArraySplit(torch.randint(0, 11, (48, 5)), torch.randint(0, 11, (48, 5))))
    network, _ = prepare(Language().eval(), data, Scheme(bits=Fixed({"head": Bits(3, 8)})))
    assert {name: quantizer.grid.bits for name, quantizer in _weights(network).items()} == {"body": 8, "head": 3}
    assert _weights(network)["head"].scale.shape == (11,)
    excluded, _ = prepare(Language().eval(), data, Scheme(exclude=("head",)))
    assert _weights(excluded)["embed.weight" if "embed.weight" in _weights(excluded) else "head.weight"].scale.shape == ()


@pytest.mark.parametrize("build", [Tied, Language])
def test_deployed_once_and_as_simulated(build, tmp_path):
    torch.manual_seed(0)
    data = arrays(6)
    if build is Language:
        data = Arrays(ArraySplit(torch.randint(0, 11, (48, 5)), torch.randint(0, 11, (48, 5))))
    model = build().eval()
    quantized = minmax()(model, data).model
    assert len(_weights(quantized)) == 2
    x = data.example(8)
    assert (quantized(x) - model(x)).abs().max() < 0.05 * model(x).abs().max()
    export(quantized, tmp_path / "net.onnx", x)
    sizes = [tensor.dims for tensor in onnx.load(tmp_path / "net.onnx").graph.initializer
             if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2]
    # Gather and MatMul read the embedding in two orders.
    assert len(sizes) == (2 if build is Tied else 3)
    session = open_session(tmp_path / "net.onnx", threads=1)
    got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    step = max(float(module.scale) for module in quantized.modules() if isinstance(module, Quantizer) and module.layer == "head" and not module.weight)
    assert np.abs(got - exact(quantized)(x).detach().numpy() if build is Language else got - exact(quantized)(x.double()).detach().numpy()).max() <= 1.01 * step
