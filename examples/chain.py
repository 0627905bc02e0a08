"""Prune to half the MACs, distil from the original, quantize to int8: one chain, one report."""

import lilliput as lp

data = lp.data.load("digits")
model = lp.create("resnet8", num_classes=data.num_classes, in_chans=data.input_shape[0])
original = lp.train.fit(model, data, lp.train.Fit(epochs=3), progress=False).model

small = lp.chain(
    lp.prune.fpgm(lp.Budget(macs=0.5)),
    lp.distill.kd(teacher=original, temperature=4.0, fit=lp.train.Fit(epochs=2)),
    lp.quantize.minmax(),
)(original, data)

for entry in small.report.entries:
    print(f"{entry.method:<16} {entry.seconds:5.1f} s")
print(f"original  {lp.train.evaluate(original, data.val):.1f} % on the validation split")
print(f"small     {lp.train.evaluate(small.model, data.val):.1f} %")
