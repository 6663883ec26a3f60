"""A page for each augmentation: range, configuration, cost, and a rendered sound before and after it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from pages import table, write_pages
from sphinx.application import Sphinx
from torch import Tensor

from soundfold.config import CONF, register
from soundfold.config.comments import key_comments
from soundfold.data.synthetic import RATE, RECIPES, SECONDS, render_clip
from soundfold.eda.augmentation_gallery import N_RANDOM, augmentation_gallery
from soundfold.eda.inversion import invert
from soundfold.experiment import build
from soundfold.features.augment_params import AugmentParams, ParamSampler
from soundfold.features.mixing import BetweenClass, ImageMixing, MixStyle
from soundfold.features.pipeline import FrontEnd
from soundfold.io.pcm import pcm_to_float
from soundfold.report.clip_figure import clip_figure

PAGES: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "augmentations.yaml").read_text())
COSTS = Path(__file__).resolve().parents[1] / "results" / "augmentation_costs.yaml"
SOUND, PARTNER, BACKGROUND = "bell", "tremolo_noise", "low_noise"
SAMPLES = round(SECONDS * RATE)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(app: Sphinx) -> None:
    """Write the pages, their pictures and their sounds; those that did not change are not made again."""
    source = Path(app.srcdir)
    folder, sounds = source / "reference" / "augmentations", source / "_static" / "augmentations"
    folder.mkdir(parents=True, exist_ok=True)
    sounds.mkdir(parents=True, exist_ok=True)
    work = source / "_build" / "augmentation_sounds"
    write_recordings(work)
    costs = yaml.safe_load(COSTS.read_text()) if COSTS.is_file() else {}
    comments = key_comments("train")
    pages, rows = {}, []
    for name, page in PAGES.items():
        file = f"{name.replace('.', '-')}.md"
        pages[file] = page_text(name, folder, sounds, work, costs, comments)
        rows.append([f"[{page['title']}]({file})", f"`augment.{name}`", _cost(costs, name)])
    index = INDEX.format(
        table=table(["augmentation", "key", "CPU time of a clip of 5 s"], rows),
        facts=costs.get("facts", ""),
        names="\n".join(name.removesuffix(".md") for name in pages),
    )
    write_pages(folder, {"index.md": index, **pages})


INDEX = """# Augmentations

One page each: what it does, its keys, its cost, and a clip before and after it. The sound is a bell of the synthetic
collection, which soundfold renders itself. Augmentations are drawn again for every clip in every epoch;
`soundfold explore clip=FILE augment=strong` makes the same pictures and sounds of a clip of yours, and
[a class of your own](../../tutorials/own-parts.md) appears there, too.

{table}
{facts}

```{{toctree}}
:hidden:

{names}
```
"""


def page_text(
    name: str, folder: Path, sounds: Path, work: Path, costs: dict[str, Any], comments: dict[str, str]
) -> str:
    page, stem = PAGES[name], name.replace(".", "-")
    lines = [f"# {page['title']}", page["text"]]
    if "source" in page:
        lines.append(f"Source: {page['source']}.")
    options = yaml.safe_dump(page["options"], sort_keys=False, default_flow_style=None, width=110)
    lines += [
        f"```yaml\n# conf/augment/mine.yaml of your project, for augment=mine\n{options}```",
        "## Before and after",
    ]
    for number, example in enumerate(examples(name, work)):
        # all pages share the clip before it
        file = f"{f'{stem}-{number}' if number else 'before'}-{example.digest}"
        _draw(folder / f"{file}.png", example)
        _render(sounds / f"{file}.ogg", example)
        lines += [f"**{example.label}**", f"![Log-mel: {example.label}]({file}.png)"]
        lines.append(f'<audio controls preload="metadata" src="../../_static/augmentations/{file}.ogg"></audio>')
    if name not in WAVEFORM:
        lines.append(RECONSTRUCTED)
    lines += ["## Keys", table(["key", "meaning"], _keys(name, comments)), "## Cost"]
    lines.append(f"CPU time of one clip of 5 s: {_cost(costs, name)}. {costs.get('facts', '')}")
    return "\n\n".join(lines) + "\n"


RECONSTRUCTED = """After this augmentation a sound exists only as a log-mel. Its sound is reconstructed from it by
the Griffin-Lim algorithm, and is rougher than a recording."""
WAVEFORM = (
    "gain_db",
    "polarity",
    "time_shift",
    "noise_snr_db",
    "background_noise",
    "impulse_response",
    "mixing.between_class",
)


def _keys(name: str, comments: dict[str, str]) -> list[list[str]]:
    prefix = f"augment.{name}"
    own = [key for key in comments if key == prefix or key.startswith(f"{prefix}.")]
    if name == "noise_snr_db":
        own += ["augment.noise_std", "augment.noise_colours"]
    if name.startswith("mixing."):
        own += ["augment.mixing.alpha"] if name != "mixing.between_class" else []
    return [[f"`{key}`", comments[key]] for key in own]


def _cost(costs: dict[str, Any], name: str) -> str:
    value = costs.get("ms", {}).get(name)
    return "not measured" if value is None else f"{value:.2f} ms"


@dataclass(frozen=True)
class Example:
    """A clip: its label, log-mel (M, T) in dB, and its waveform float32 (N,); None if only the log-mel exists."""

    label: str
    log_mel: Tensor
    wave: Tensor | None
    front_end: FrontEnd

    @property
    def digest(self) -> str:
        """Names the picture and the sound, so that a changed example has another name."""
        return hashlib.sha256(self.log_mel.numpy().tobytes()).hexdigest()[:10]


def examples(name: str, work: Path) -> Iterator[Example]:
    cfg = compose_options(PAGES[name]["options"], work)
    front_end = FrontEnd(build.logmel(cfg), None, build.augmentation(cfg))
    clip, partner = _clip(SOUND), _clip(PARTNER)
    log_mel = front_end.logmel(pcm_to_float(torch.stack([clip, partner])))
    front_end.mean.fill_(float(log_mel.mean()))
    front_end.std.fill_(float(log_mel.std()))
    yield Example("Before", log_mel[0, 0], pcm_to_float(clip), front_end)
    if name.startswith("mixing."):
        yield Example("The other clip", log_mel[1, 0], pcm_to_float(partner), front_end)
        yield _mixed(name, front_end, torch.stack([clip, partner]))
        return
    if name == "polarity":
        yield Example("After: the same log-mel", log_mel[0, 0], -pcm_to_float(clip), front_end)
        return
    augmentation = front_end.augmentation
    assert augmentation is not None
    settings = [
        AugmentParams({key: params}) for key, transform in augmentation.items() for _, params in transform.examples(key)
    ]
    items = augmentation_gallery(front_end, clip)[1:-N_RANDOM]
    for item, params in zip(items, settings, strict=True):
        wave = (
            augmentation.transform_stage("waveform", pcm_to_float(clip[None]), params)[0] if name in WAVEFORM else None
        )
        yield Example(f"After: {item.name}", item.log_mel, wave, front_end)


def _mixed(name: str, front_end: FrontEnd, clips: Tensor) -> Example:
    """Mix the first clip with the second, in equal parts."""
    share, partner = torch.full((2,), 0.5), torch.tensor([1, 0])
    kind = name.removeprefix("mixing.")
    if kind == "between_class":
        mixing = BetweenClass(1.0)
        params: Any = mixing.draw(ParamSampler(2, torch.Generator().manual_seed(0)))
        wave = mixing.forward(pcm_to_float(clips), type(params)(share, partner))
        return Example("After: equal shares", front_end.logmel(wave)[0, 0], wave[0], front_end)
    images = front_end(clips)
    if kind == "mixstyle":
        style = MixStyle(1.0, 1.0)
        params = style.draw(ParamSampler(2, torch.Generator().manual_seed(0)))
        image = style.forward(images, type(params)(torch.zeros(2), partner))
        label = "After: the statistics of the other clip"
    else:
        mixing_of = ImageMixing(
            1.0, **{key: float(key == kind) for key in ("mixup", "time_cutmix", "frequency_cutmix")}
        )
        params = mixing_of.draw(ParamSampler(2, torch.Generator().manual_seed(3)))
        half = torch.tensor([[0.3, 0.7]] * 2)
        empty = torch.zeros(2, 2)
        params = type(params)(
            partner=partner,
            weight=share if kind == "mixup" else torch.ones(2),
            time=half if kind == "time_cutmix" else empty,
            frequency=half if kind == "frequency_cutmix" else empty,
            share=share,
        )
        image = mixing_of.forward(images, images[partner], params)
        label = "After: half of each" if kind == "mixup" else "After: 40 % of the other clip"
    return Example(label, (image * front_end.std + front_end.mean)[0, 0], None, front_end)


def compose_options(options: dict[str, Any], work: Path, *overrides: str) -> DictConfig:
    """Compose the options as those of a file of a project, which may set keys that are null by default."""
    text = yaml.safe_dump(options)
    for word, folder in (("BACKGROUNDS", "backgrounds"), ("RESPONSES", "responses")):
        text = text.replace(word, str(work / folder))
    path = work / "conf" / "augment" / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    register()
    fixed = [f"data.root={work}", f"paths.cache={work / 'cache'}", f"hydra.searchpath=[file://{work / 'conf'}]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("explore", ["data=synthetic", "augment=mine", *fixed, *overrides])


def _clip(name: str) -> Tensor:
    """Render a sound of the synthetic collection, int16 (N,), at half of full scale."""
    wave = render_clip(RECIPES[name], np.random.default_rng([1, 2]), np.random.default_rng([1, 3]))
    wave = np.pad(wave, (0, SAMPLES))[:SAMPLES]
    return torch.from_numpy(np.round(0.5 * 32767 * wave / np.abs(wave).max()).astype(np.int16))


def write_recordings(work: Path) -> None:
    """Write a background and an impulse response."""
    rng = np.random.default_rng(0)
    decay = rng.standard_normal(RATE // 2) * 10 ** (-3 * np.arange(RATE // 2) / (RATE // 2))
    decay[0] = 4.0
    for folder, wave in (("backgrounds/low_noise", _clip(BACKGROUND).numpy() / 32768), ("responses/room", decay / 8)):
        path = work / f"{folder}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            soundfile.write(path, wave, RATE)


def _draw(path: Path, example: Example) -> None:
    if path.is_file():
        return
    _remove_older(path)
    centers = example.front_end.logmel.edges[1:-1].numpy()
    figure = clip_figure(None, SECONDS, example.log_mel.numpy(), centers)
    figure.savefig(path, dpi=110, facecolor="white", bbox_inches="tight", pad_inches=0.1)


def _render(path: Path, example: Example) -> None:
    if path.is_file():
        return
    _remove_older(path)
    wave = example.wave
    if wave is None:
        wave = invert(example.log_mel[None], example.front_end.logmel)[0]
    soundfile.write(path, wave.clamp(-1, 1).numpy(), RATE, format="OGG", subtype="VORBIS")


def _remove_older(path: Path) -> None:
    for older in path.parent.glob(f"{path.stem.rsplit('-', 1)[0]}-*{path.suffix}"):
        older.unlink()
