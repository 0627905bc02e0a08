"""Where a network spends its parameters, its arithmetic and its memory."""

import lilliput as lp

data = lp.data.load("digits")
model = lp.create("resnet20", num_classes=data.num_classes, in_chans=data.input_shape[0])
profile = lp.profile(model, data.example())

print(f"{profile.params:,} parameters, {profile.macs:,} MACs, {profile.peak_memory:,} bytes of activations at once")
for row in sorted(profile.layers, key=lambda row: row.macs, reverse=True)[:5]:
    print(f"  {row.layer:<20} {row.macs / profile.macs:6.1%} of the MACs, {row.params / profile.params:6.1%} of the parameters")
