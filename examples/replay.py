"""A recipe makes a run; the run is loaded without any class definition, and replayed to the same figures."""

import lilliput as lp

recipe = {
    "name": "digits-half",
    "model": "resnet8",
    "data": "digits",
    "train": {"epochs": 1},
    "steps": [{"prune.l1_norm": {"macs": "50%"}}],
}
run = lp.pipelines.compress(recipe)
again = lp.pipelines.replay(run)

for first, second in zip(run.variants(), again.variants(), strict=True):
    same = all(first.metrics[name] == second.metrics[name] for name in ("accuracy", "params", "macs", "size"))
    print(f"{first.label:<12} {first.metrics['accuracy']:.2f} %  {first.metrics['macs']:,.0f} MACs  {'replayed' if same else 'differs'}")

network = lp.load(run)
print(f"{type(network).__name__} with {sum(p.numel() for p in network.parameters()):,} parameters, from {run.folder}")
