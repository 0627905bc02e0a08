"""torchvision's models beside a CPU-only torch.

Its wheels are built against CUDA, so beside a CPU build its compiled operators do not load and the import fails when
it registers fake kernels for them. Declaring the operators' schemas first is enough for every model for classification, segmentation and video.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_ROI = "Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width"
_BACK = "int batch_size, int channels, int height, int width"
_DEFORM = ("Tensor weight, Tensor offset, Tensor mask, Tensor bias, int stride_h, int stride_w, int pad_h, int pad_w, "
           "int dilation_h, int dilation_w, int groups, int offset_groups, bool use_mask")
_POOL = "float spatial_scale, int pooled_height, int pooled_width"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({_ROI}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, {_POOL}, {_BACK}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool({_ROI}) -> (Tensor, Tensor)",
    f"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, {_POOL}, {_BACK}) -> Tensor",
    f"ps_roi_align({_ROI}, int sampling_ratio) -> (Tensor, Tensor)",
    f"_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_POOL}, int sampling_ratio, {_BACK}) -> Tensor",
    f"ps_roi_pool({_ROI}) -> (Tensor, Tensor)",
    f"_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_POOL}, {_BACK}) -> Tensor",
    f"deform_conv2d(Tensor input, {_DEFORM}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, Tensor input, {_DEFORM}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_library: Any = None


def models() -> Any:
    """The module `torchvision.models`."""
    global _library
    if _library is None and not torch.cuda.is_available():
        _library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            _library.define(schema)
    import torchvision.models

    return torchvision.models


def names() -> list[str]:
    """The 80 classification models."""
    return list(models().list_models(module=models()))


def others() -> list[str]:
    """The models for segmentation and video."""
    library = models()
    return [*library.list_models(module=library.segmentation), *library.list_models(module=library.video)]


def build_other(name: str) -> tuple[nn.Module, torch.Tensor]:
    """An untrained model for segmentation or video in evaluation mode, and a small example batch of two."""
    torch.manual_seed(0)
    library = models()
    if name in library.list_models(module=library.segmentation):
        return library.get_model(name, weights=None, weights_backbone=None, aux_loss=False).eval(), torch.randn(2, 3, 128, 128)
    side = 112 if name in ("r3d_18", "mc3_18", "r2plus1d_18") else 224
    return library.get_model(name, weights=None).eval(), torch.randn(2, 3, 16, side, side)


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """An untrained model in evaluation mode, and an example batch of two at its published size."""
    torch.manual_seed(0)
    library = models()
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = library.get_model(name, weights=None, **options).eval()
    size = {"inception_v3": 299, "vit_h_14": 224}.get(name, 224)
    return model, torch.randn(2, 3, size, size)


def sized(name: str, model: nn.Module, size: int) -> nn.Module:
    """The same architecture for inputs of `size`; vision transformers are built for one size."""
    return models().get_model(name, weights=None, image_size=size).eval() if name.startswith("vit") else model
