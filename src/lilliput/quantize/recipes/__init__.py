"""The published methods, each a choice on the axes grid, range, rounding, bits and gradient."""

from lilliput.quantize.recipes.codebook import (
    bit_goes_down,
    freshnets,
    hashed_nets,
    kmeans_sharing,
    lloyd_max,
    log_quant,
    product_quantization,
)
from lilliput.quantize.recipes.diffusion import ptq4dm
from lilliput.quantize.recipes.learned import (
    apot,
    auxiliary_module,
    bnn,
    dorefa,
    dsq,
    inq,
    least_squares_binary,
    llt,
    lq_nets,
    multi_bit_mixed,
    pact,
    qil,
    sat,
    syq,
    ttq,
    twn,
    two_stage,
    xnor_net,
)
from lilliput.quantize.recipes.low_precision import (
    alq_amq,
    fixed_point_sr,
    fp8_training,
    int8_training,
    mixed_precision_training,
)
from lilliput.quantize.recipes.mixed import alq_bits, aq, autoq, dmbq, dnas_bits, dq, fracbits, haq, hawq, releq
from lilliput.quantize.recipes.post_training import (
    aciq,
    adaround,
    apq_vit,
    brecq,
    dfq,
    gptq,
    layerwise_few_shot,
    llm_int8,
    peg,
    ptq_vit,
    smoothquant,
)
from lilliput.quantize.recipes.static import dynamic, entropy, minmax, mse, percentile
from lilliput.quantize.recipes.training import lsq, octav, qat

__all__ = ["aciq", "adaround", "alq_amq", "alq_bits", "apot", "apq_vit", "aq", "autoq", "auxiliary_module", "bit_goes_down",
           "bnn", "brecq", "dfq", "dmbq", "dnas_bits", "dorefa", "dq", "dsq", "dynamic", "entropy", "fixed_point_sr",
           "fp8_training", "fracbits", "freshnets", "gptq", "haq", "hashed_nets", "hawq", "inq", "int8_training",
           "kmeans_sharing", "layerwise_few_shot", "least_squares_binary", "llm_int8", "lloyd_max", "llt", "log_quant",
           "lq_nets", "lsq", "minmax", "mixed_precision_training", "mse", "multi_bit_mixed", "octav", "pact", "peg",
           "percentile", "product_quantization", "ptq4dm", "ptq_vit", "qat", "qil", "releq", "sat", "smoothquant", "syq",
           "ttq", "twn", "two_stage", "xnor_net"]
