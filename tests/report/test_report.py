"""Run and comparison pages, opened in a browser if one is installed."""

import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.browsing import faultless, inspect
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from soundfold.config import CONF, register
from soundfold.data.attribution import attribution, read_attributions
from soundfold.data.leakage import SeenClips
from soundfold.data.tables import ClipTable, read_table
from soundfold.errors import InputError
from soundfold.evaluation.compare import load_run
from soundfold.evaluation.predictions import predictions_csv
from soundfold.evaluation.results import FoldResult
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.models.cam import class_activation
from soundfold.models.resnet import ResNet18
from soundfold.report.clip_figure import clip_figure
from soundfold.report.comparison_page import write_comparison_page
from soundfold.report.drawing import FOREGROUND, inline_svg, save_figure
from soundfold.report.mistakes import most_confident, render_mistakes
from soundfold.report.page import audio_uri
from soundfold.report.plots import confusion_matrix, learning_curves, learning_curves_of_runs
from soundfold.report.run_page import write_run_page
from soundfold.validation import report_options

ROOT = Path(__file__).resolve().parents[2]
FULL = report_options(["report.mistakes=3"])


def write_run(folder: Path, table: ClipTable, root: Path, *overrides: str, leaky: bool = False, seed: int = 0) -> Path:
    """Write a run with an untrained network, random predictions (about 60 % correct) and learning curves."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["data=esc10", f"data.root={root}", f"seed={seed}", "optim.lr=0.002", *overrides])
    config, rng = OmegaConf.to_yaml(cfg, resolve=True), np.random.default_rng(seed)
    classes = len(table.classes)
    logits = rng.normal(size=(len(table), classes)).astype(np.float32)
    logits += 2 * np.eye(classes, dtype=np.float32)[table.targets]
    network = ResNet18(classes)
    for fold in table.fold_numbers:
        clips = np.flatnonzero(table.folds == fold)
        fold_folder = folder / f"fold{fold}"
        (fold_folder / "checkpoints").mkdir(parents=True)
        ModelBundle(
            network.state_dict(), torch.tensor(-40.0), torch.tensor(15.0), table.classes, config, SeenClips()
        ).save(fold_folder / "checkpoints" / "weights.pt")
        (fold_folder / "config.yaml").write_text(config)
        predictions = predictions_csv(table, clips, logits[clips])
        (fold_folder / "predictions.csv").write_text(predictions)
        rows = [f"{e},{5 * e},1e-3,{2 / (e + 1) + 0.1 * fold:.4f},{e / 10:.4f}" for e in range(4 + fold)]
        (fold_folder / "metrics.csv").write_text("\n".join(["epoch,step,lr,train/loss,train/accuracy", *rows]) + "\n")
        predicted = logits[clips].argmax(axis=1)
        confusion = np.zeros((classes, classes), dtype=int)
        np.add.at(confusion, (table.targets[clips], predicted), 1)
        FoldResult(
            cv_id="1a2b3c4d",
            fold=fold,
            folds=list(table.fold_numbers),
            protocol="random_clips" if leaky else "benchmark",
            leaky=leaky,
            seed=seed,
            classes=list(table.classes),
            n=len(clips),
            accuracy=float((predicted == table.targets[clips]).mean()),
            metrics={"f1": 0.6, "top5": 0.9},
            loss=1.2,
            confusion=confusion.tolist(),
            val_accuracy=None,
            objective=0.6,
            epochs=4,
            steps=20,
            seconds=12.0,
            audit={"train": len(table) - len(clips), "test": len(clips), "same_clip": 7 if leaky else 0},
            environment={"commit": "abc", "device": "cpu", "versions": {"torch": "2"}},
            predictions=hashlib.sha256(predictions.encode()).hexdigest(),
            command=f"python scripts/train.py 'name=<b>' fold={fold}" if fold > 1 else None,
        ).save(fold_folder / "result.json")
    return folder


@pytest.fixture(scope="module")
def real_run(esc10, tmp_path_factory) -> Path:
    """A run with random predictions on all clips of ESC-10."""
    return write_run(tmp_path_factory.mktemp("runs") / "esc10-a", read_table(esc10 / "meta/esc50.csv"), esc10)


def toy_table(classes: tuple[str, ...], clips: int = 60) -> ClipTable:
    numbers = np.arange(clips)
    files, sources = tuple(f"{i}.wav" for i in numbers), tuple(f"s{i // 2}" for i in numbers)
    return ClipTable(files, numbers // 2 % 3 + 1, numbers % len(classes), sources, classes)


@pytest.mark.slow
def test_a_full_report_of_real_clips_in_a_browser(real_run, browser):
    page = write_run_page(real_run, load_run(real_run), FULL)
    assert page.stat().st_size < 15e6
    assert {p.suffix for p in (real_run / "figures").iterdir()} == {".pdf", ".svg", ".png"}
    assert (real_run / "figures" / "confusion.pdf").read_bytes().startswith(b"%PDF")
    for context in ({"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}, {}):
        seen = inspect(browser, page, **context)
        assert faultless(seen)
        # each clip, and the part of it that the model listened to
        assert len(seen["durations"]) == 6
        # exactly the boxes that scroll have a hint
        boxes = seen["tab"].evaluate(
            """[...document.querySelectorAll('.scroll')].filter(box => box.clientWidth).map(box =>
            [box.scrollWidth > box.clientWidth + 1, getComputedStyle(box, '::before').content.includes('Scroll')])"""
        )
        assert all(scrolls == hinted for scrolls, hinted in boxes)
        assert any(scrolls for scrolls, _ in boxes) == bool(context)
        assert min(seen["durations"]) > 4.9
    tab = seen["tab"]
    # selecting a cell of the matrix by keyboard lists its clips
    assert tab.locator(".cell:visible").count() == 0
    cell = tab.locator("#confusion svg a").first
    label = cell.get_attribute("aria-label")
    cell.focus()
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".cell:visible")
    visible = tab.locator(".cell:visible")
    assert f"{visible.locator('tbody tr').count()} clips" in label
    # text contrasts with the background of both themes
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        background, text = (
            tab.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color")
        )
        assert contrast(background, text) > 10
        figure_text = tab.evaluate("getComputedStyle(document.querySelector('#confusion svg text')).fill")
        assert contrast(background, figure_text) > 10


def contrast(*colors: str) -> float:
    """Return the contrast ratio (WCAG 2.1) of two colors such as rgb(1, 2, 3)."""
    luminances = []
    for color in colors:
        channels = np.array([int(channel) for channel in re.findall(r"\d+", color)[:3]]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        luminances.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


@pytest.mark.slow
def test_a_comparison_in_a_browser(real_run, esc10, browser):
    other = write_run(real_run.parent / "esc10-b", read_table(esc10 / "meta/esc50.csv"), esc10, leaky=True, seed=1)
    folders = [real_run, other]
    page = write_comparison_page(folders, [load_run(folder) for folder in folders])
    seen = inspect(browser, page, viewport={"width": 390, "height": 844})
    assert faultless(seen)
    text = seen["tab"].inner_text("body")
    assert "LEAKY: esc10-b" in text
    assert re.search(r"(by|scored) \d+\.\d\d points .*95 % interval of the difference", text)
    assert (page.parent / "figures" / "accuracies.svg").is_file()


def test_a_plain_page(real_run):
    run = load_run(real_run)
    text = write_run_page(real_run, run, report_options(["report.page=plain"])).read_text()
    assert f"{100 * run.total.accuracy:.2f} %" in text
    assert "split=benchmark" in text
    assert "Published results" in text
    assert 'class="leaky"' not in text
    assert "<audio" not in text
    # default and value of a changed setting
    assert re.search(r"optim\.lr</th><td>0\.001</td><td>0\.002</td>", text)
    config = text.split("<details>")[0].split('id="config"')[1]
    assert "data.root" not in config
    # the commands of the folds; fold 1 is a result of an older version
    assert re.findall(r"Command of fold (\d)", config) == ["2", "3", "4", "5"]
    assert "train.py &#39;name=&lt;b&gt;&#39; fold=2</pre>" in config
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', text) == []


@pytest.mark.slow
def test_pages_without_sound_still_name_the_authors(real_run):
    run = load_run(real_run)
    silent = write_run_page(real_run, run, report_options(["report.audio=false", "report.mistakes=2"])).read_text()
    assert "data:audio" not in silent
    assert silent.count('class="clip"') == 2
    assert silent.count("freesound.org/people/") == 2


@pytest.mark.slow
def test_a_leaky_run_is_marked(tmp_path, capsys):
    folder = write_run(tmp_path / "run", toy_table(("a", "b")), tmp_path, leaky=True)
    text = write_run_page(folder, load_run(folder), report_options([])).read_text()
    assert 'class="leaky"' in text
    assert "21 of 60 are also training clips" in text
    # without audio files, the page explains why and lists the mistakes in a table
    assert "Spectrograms and audio are not available" in text
    assert "Spectrograms and audio of mistakes are not available" in capsys.readouterr().err
    assert "Most confident first" in text
    assert "<footer>" in text


def test_hostile_class_names_are_escaped(tmp_path, browser):
    classes = ("<script>alert(1)</script>", "$\\frac{1}{0}$", 'q"uote & <b>', "ümläut_音")
    folder = write_run(tmp_path / "run", toy_table(classes), tmp_path)
    page = write_run_page(folder, load_run(folder), report_options([]))
    seen = inspect(browser, page)
    assert faultless(seen)
    text = seen["tab"].inner_text("body")
    assert all(name.replace("_", " ") in text for name in classes)


def test_most_confident_mistakes_are_sorted_and_unique(real_run):
    run = load_run(real_run)
    indices = most_confident(run, 20)
    confidence = np.exp(run.logits - np.log(np.exp(run.logits).sum(axis=1, keepdims=True))).max(axis=1)
    assert not run.correct[indices].any()
    assert (np.diff(confidence[indices]) <= 0).all()
    assert confidence[indices].min() >= np.sort(confidence[~run.correct])[-20]
    assert len({run.clips[i][1] for i in indices}) == 20


@pytest.mark.parametrize("name", ["../../private.wav", "/home/me/private.wav"])
def test_a_sound_outside_of_the_collection_is_not_shown(name, tiny_run):
    """The names in a stranger's predictions.csv could lead to any file of this machine."""
    run = load_run(tiny_run)
    run = replace(run, clips=tuple((fold, name) for fold, _ in run.clips))
    with pytest.raises(InputError, match=r"has the clip '.*private.wav', which is outside of the collection"):
        next(render_mistakes(tiny_run, run, 3))


def test_class_activation_is_grad_cam():
    torch.manual_seed(0)
    network = ResNet18(5).eval()
    image, features = torch.randn(3, 1, 96, 160), []
    network.layer4.register_forward_hook(lambda _, __, output: features.append(output))
    logits = network(image)
    target = logits.argmax(dim=1)  # so that the activation is not zero everywhere
    gradient = torch.autograd.grad(logits[torch.arange(3), target].sum(), features[0])[0]
    # Grad-CAM (Selvaraju et al., ICCV 2017) equals CAM for a network that ends in average pooling and a linear layer
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * features[0]).sum(dim=1).relu().detach()
    cam = class_activation(network, image, target)
    assert cam.shape == (3, 96, 160)
    assert float(cam.max()) <= 1
    # a position of the last feature maps is at every 32nd band and frame
    torch.testing.assert_close(cam[:, ::32, ::32], expected / expected.amax(dim=(1, 2), keepdim=True))


def test_a_map_without_frequency_says_so():
    log_mel, centers = np.zeros((32, 100)), np.geomspace(100, 8000, 32)
    over_time = np.tile(np.linspace(0, 1, 100), (32, 1))
    over_both = over_time * np.linspace(0, 1, 32)[:, None]
    notes = [
        [text.get_text() for text in clip_figure(None, 5.0, log_mel, centers, activation).axes[0].texts]
        for activation in (over_time, over_both, None)
    ]
    assert notes == [["activation over time only"], [], []]


def test_attributions_of_esc10(esc10):
    attributions = read_attributions(esc10)
    table = read_table(esc10 / "meta/esc50.csv")
    entries = [attribution(name, source, attributions) for name, source in zip(table.files, table.sources, strict=True)]
    assert all(entry.address for entry in entries)
    dog = entries[table.files.index("1-110389-A-0.ogg")]
    assert dog.text.endswith("by soundscalpel.com [CC-BY]")
    assert dog.address == "http://www.freesound.org/people/soundscalpel.com/sounds/110389/"
    assert attribution("mine.wav", "mine", {}).text == "source mine"


def test_svg_ids_are_unique_and_saved_figures_reproducible(tmp_path):
    figures = [learning_curves({"train/loss": [np.ones(3), np.ones(5)]}, 0.5, 2) for _ in range(2)]
    first, second = (str(inline_svg(figure, 'a "b" <c>')) for figure in figures)
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert not ids[0] & ids[1]
    assert FOREGROUND not in first
    assert "currentColor" in first
    assert 'aria-label="a &#34;b&#34; &lt;c&gt;"' in first
    for number, figure in enumerate(figures):
        save_figure(figure, tmp_path, f"f{number}")
    # no date and no random ids
    assert (tmp_path / "f0.pdf").read_bytes() == (tmp_path / "f1.pdf").read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_the_loss_axis_shows_ordinary_values_beside_an_outlier():
    ordinary = {"train/loss": [np.array([2.5, 1.2, 0.8])], "val/loss": [np.array([2.6, 1.4, 1.1])]}
    outlier = {"train/loss": [np.array([2.5, 3e6, 4e6])]}
    figures = [
        learning_curves_of_runs({"a": ordinary}, 10),
        learning_curves_of_runs({"a": ordinary, "b": outlier}, 10),
        # one of two folds
        learning_curves({name: [*folds, outlier["train/loss"][0]] for name, folds in ordinary.items()}, 0.5, 10),
    ]
    axes = [figure.axes[0] for figure in figures]
    assert all(2.5 < ax.get_ylim()[1] < 3 for ax in axes)
    notes = [[text.get_text() for text in ax.texts] for ax in axes]
    assert notes == [[], ["cut off: up to 4e+06"], ["cut off: up to 4e+06"]]


def test_the_confusion_matrix_is_darker_for_larger_shares():
    counts = np.array([[39, 1, 0], [10, 30, 0], [0, 0, 40]])
    image = confusion_matrix(counts, ("a", "b", "c")).axes[0].images[0]
    colors = image.to_rgba(image.get_array())[..., :3] @ [0.2126, 0.7152, 0.0722]
    assert colors[0, 2] > 0.95, "a cell without clips is not white"
    order = np.argsort((counts / 40).ravel(), kind="stable")
    assert (np.diff(colors.ravel()[order]) <= 1e-9).all()
    assert colors[0, 1] > 0.9, "one wrong clip has dark ink"
    assert colors[2, 2] < 0.2


@pytest.mark.slow
def test_confusion_matrix_of_fifty_classes(tmp_path):
    counts = np.random.default_rng(0).integers(0, 3, (50, 50))
    links = {f"#cell-{i}-{j}": f"{i} as {j}" for i, j in zip(*np.nonzero(counts), strict=True)}
    svg = str(inline_svg(confusion_matrix(counts, [f"class_{i}" for i in range(50)], linked=True), "x", links))
    assert set(re.findall(r'<a href="(#[^"]+)" aria-label', svg)) == set(links)
    assert len(svg) < 2e6


@pytest.mark.parametrize(("rate", "kind"), [(44100, "audio/mpeg"), (8000, "audio/mpeg"), (44000, "audio/wav")])
def test_audio_uri_encodes_any_rate(rate, kind):
    wave = (3000 * np.sin(np.arange(rate) / 20)).astype(np.int16)
    assert audio_uri(wave, rate).startswith(f"data:{kind};base64,")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("report.page=plane", "Did you mean plain"),
        ("report.audio=maybe", "report.audio=maybe"),
        ("report.mistakes=-1", "report.mistakes=-1 must be at least 0"),
        ("report.sound=no", "report.sound is not a key"),
    ],
)
def test_bad_report_settings_are_refused(override, message):
    with pytest.raises(InputError, match=message):
        report_options([override])
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts/report.py"), "x", override], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
