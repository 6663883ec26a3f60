"""The picture and the suggestion of the learning-rate finder."""

from __future__ import annotations

from matplotlib.figure import Figure

from soundfold.experiment.find_lr import LrCurve
from soundfold.io.console import console
from soundfold.report.drawing import COLORS, new_figure, save_figure, styled


def report_lr_curve(curve: LrCurve) -> None:
    """Write ``find_lr.png`` into the run's folder, and print the suggested rate as an override."""
    save_figure(plot_lr_curve(curve), curve.folder, "find_lr", ("png",))
    clips = "all clips" if curve.fold is None else f"the training clips of fold {curve.fold}"
    console.print(
        f"{len(curve.lr)} steps on {clips}, learning rate {curve.lr[0]:.2g} to {curve.lr[-1]:.2g}. "
        f"Curve: {curve.folder / 'find_lr.png'}",
        soft_wrap=True,
    )
    if curve.suggestion is None:
        console.print("No suggestion: the loss never falls. Set other find_lr.low and find_lr.high, or more steps.")
    else:
        # to standard output, for scripts
        print(f"optim.lr={curve.suggestion:.2g}")


@styled
def plot_lr_curve(curve: LrCurve) -> Figure:
    """Plot the loss by learning rate, with the suggestion as a dotted line."""
    figure = new_figure(5.6, 3.2)
    axes = figure.subplots()
    axes.plot(curve.lr, curve.loss, ".", ms=3, color=COLORS[0], alpha=0.5, label="step")
    axes.plot(curve.lr, curve.mean, color=COLORS[0], label="moving average")
    if curve.suggestion is not None:
        axes.axvline(curve.suggestion, linestyle=":", color=COLORS[1], label=f"suggestion, {curve.suggestion:.2g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")  # the style does not parse the default's math
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss, nats")
    # single steps of a diverging loss would flatten the rest
    axes.set_ylim(0, 1.1 * float(max(curve.mean)))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
