"""One point of a sweep: how fast a balanced spiking network fires for a given rate of its input.

A small network in the manner of Brunel (2000): excitatory and inhibitory leaky integrate-and-fire neurons, sparsely
connected at random, driven by independent Poisson input. Equal arguments give equal files: every random number comes
from ``--seed``, and the numpy target needs no compiler on the worker.
"""

import argparse
import json
import os
from pathlib import Path

import brian2 as b2
import numpy as np

b2.prefs.codegen.target = "numpy"

N_EXC, N_INH = 320, 80
CONNECTED = 0.1  # probability of a synapse between two neurons
INPUTS = 100  # Poisson inputs of each neuron
INHIBITION = 5.0  # strength of an inhibitory synapse relative to an excitatory one
STEP_MS = 0.1


def simulate(rate_hz: float, seed: int, duration_ms: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (neuron, time in steps of 0.1 ms) of every spike of the network.

    ``rate_hz`` is the rate of each of the Poisson inputs of each neuron.
    """
    b2.start_scope()
    b2.seed(seed)
    b2.defaultclock.dt = STEP_MS * b2.ms
    namespace = {"tau": 20 * b2.ms, "v_reset": 10 * b2.mV, "v_threshold": 20 * b2.mV}
    neurons = b2.NeuronGroup(
        N_EXC + N_INH,
        "dv/dt = -v / tau : volt (unless refractory)",
        threshold="v > v_threshold",
        reset="v = v_reset",
        refractory=2 * b2.ms,
        method="exact",
        namespace=namespace,
    )
    neurons.v = "rand() * v_threshold"

    weight = 0.5 * b2.mV
    exc = b2.Synapses(neurons[:N_EXC], neurons, on_pre="v_post += w", namespace={"w": weight})
    exc.connect(condition="i != j", p=CONNECTED)
    exc.delay = 1.5 * b2.ms
    inh = b2.Synapses(neurons[N_EXC:], neurons, on_pre="v_post -= w", namespace={"w": INHIBITION * weight})
    inh.connect(p=CONNECTED)
    inh.delay = 1.5 * b2.ms
    drive = b2.PoissonInput(neurons, "v", N=INPUTS, rate=rate_hz * b2.Hz, weight=weight)

    spikes = b2.SpikeMonitor(neurons)
    net = b2.Network(neurons, exc, inh, drive, spikes)
    net.run(duration_ms * b2.ms)
    steps = np.rint(np.asarray(spikes.t / b2.ms) / STEP_MS).astype(np.int32)
    return np.asarray(spikes.i, dtype=np.int32), steps


def summary(neuron: np.ndarray, steps: np.ndarray, duration_ms: float) -> dict[str, float]:
    """Return mean rates in Hz and the coefficient of variation of the inter-spike intervals."""
    seconds = duration_ms / 1000
    variations = []
    for index in range(N_EXC + N_INH):
        intervals = np.diff(steps[neuron == index])
        if len(intervals) > 1:
            variations.append(float(np.std(intervals) / np.mean(intervals)))
    return {
        "rate_exc_hz": round(float(np.sum(neuron < N_EXC)) / N_EXC / seconds, 6),
        "rate_inh_hz": round(float(np.sum(neuron >= N_EXC)) / N_INH / seconds, 6),
        "cv_isi": round(float(np.mean(variations)), 6) if variations else 0.0,
    }


def main() -> None:
    """Simulate one parameter; write ``rate.json`` and ``spikes.npz``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=20.0, help="rate of each input, Hz")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--duration", type=float, default=500.0, help="simulated ms")
    args = parser.parse_args()

    neuron, steps = simulate(args.rate, args.seed, args.duration)
    figures = summary(neuron, steps, args.duration)
    report = {"rate": args.rate, "seed": args.seed, "duration_ms": args.duration, **figures}

    results = Path(os.environ.get("P2PQ_RESULTS", "results"))
    results.mkdir(parents=True, exist_ok=True)
    (results / "rate.json").write_text(json.dumps(report) + "\n")
    np.savez_compressed(results / "spikes.npz", neuron=neuron, step=steps)
    print(f"input {args.rate:g} Hz: {figures['rate_exc_hz']:.2f} Hz, {len(neuron)} spikes")


if __name__ == "__main__":
    main()
