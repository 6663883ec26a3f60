import csv
import io

import numpy as np
import pytest

from soundfold.data.collection import open_collection
from soundfold.data.store import Waveforms
from soundfold.data.tables import ClipTable
from soundfold.eda.csv_tables import shortcuts_csv
from soundfold.eda.cues import CUES, FLOOR_DB, FRAME, clip_cues
from soundfold.eda.shortcuts import FoldInputs, audit_shortcuts, fit_logistic, permuted_labels, shortcut_lines

RATE = 8000


def noise(seed: int = 0, seconds: float = 1.0, level: float = 1000.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE)).clip(-32000, 32000)


def tone(hz: float, amplitude: float, seconds: float = 1.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)


def silenced(wave: np.ndarray, *spans: tuple[float, float]) -> np.ndarray:
    for start, end in spans:
        wave[round(start * RATE) : round(end * RATE)] = 0
    return wave


def low_passed(wave: np.ndarray, hz: float) -> np.ndarray:
    spectrum = np.fft.rfft(wave)
    spectrum[np.fft.rfftfreq(len(wave), 1 / RATE) > hz] = 0
    return np.fft.irfft(spectrum)


def clipped() -> np.ndarray:
    wave = noise()
    wave[100:140], wave[200:210], wave[300:302] = 32767, -32768, 32767
    return wave


def with_tone() -> np.ndarray:
    return noise(level=10) + tone(3000, 8000)


@pytest.mark.parametrize(
    ("wave", "expected"),
    [
        (silenced(noise(), (0, 0.2), (0.5, 0.55), (0.7, 1)), {"leading_silence_s": 0.2, "trailing_silence_s": 0.3}),
        (silenced(noise(), (0, 0.2), (0.5, 0.55), (0.7, 1)), {"inner_silence_share": 0.05, "duration_s": 1.0}),
        (silenced(noise(), (0, 1)), {"leading_silence_s": 1.0, "trailing_silence_s": 0.0, "rms_db": FLOOR_DB}),
        (noise(), {"leading_silence_s": 0.0, "clipped_share": 0.0, "step_bits": 0.0, "dc_offset_db": FLOOR_DB}),
        # two samples are not a run
        (clipped(), {"clipped_share": 50 / RATE, "peak_db": 0.0}),
        (noise() // 256 * 256, {"step_bits": 8.0}),
        (noise() + 1000, {"dc_offset_db": 20 * np.log10(1000 / 32768)}),
        # 3.3 periods: the mean is not zero, but no offset
        (tone(3.3, 8000), {"dc_offset_db": FLOOR_DB}),
        (tone(440, 16384), {"peak_db": -6.02, "rms_db": -9.03, "floor_db": -9.03, "rolloff_hz": 440}),
        (noise(), {"cliff_db": 0.0, "cliff_hz": RATE / 2, "bandwidth_hz": RATE / 2}),
        (low_passed(noise(), 3000), {"cliff_hz": 3000, "bandwidth_hz": 3000, "rolloff_hz": 3000}),
        # the level also falls above a tone, but nothing below it is loud
        (with_tone(), {"cliff_db": 0.0}),
        (np.array([5.0]), {"duration_s": 1 / RATE, "cliff_db": 0.0, "step_bits": 0.0}),
    ],
)
def test_cues_of_known_signals(wave, expected):
    values = clip_cues(np.rint(wave).astype(np.int16), RATE)
    assert np.isfinite(values).all()
    cues = dict(zip(CUES, values, strict=True))
    for name, value in expected.items():
        assert cues[name] == pytest.approx(value, abs=200 if name.endswith("_hz") else 0.02), name


def test_depth_of_a_low_pass_edge():
    cues = dict(zip(CUES, clip_cues(low_passed(noise(), 3000).astype(np.int16), RATE), strict=True))
    assert cues["cliff_db"] > 30


def collection(clips: list[np.ndarray], targets: list[int], folds: list[int], sources=None) -> tuple:
    """Return table and packed store of clips of equal length."""
    n = len(clips)
    names = tuple(f"{i}.wav" for i in range(n))
    classes = tuple(f"class_{t}" for t in range(max(targets) + 1))
    table = ClipTable(names, np.array(folds), np.array(targets), tuple(sources or names), classes)
    samples = np.rint(np.stack(clips)).astype(np.int16)
    return table, Waveforms(samples, np.full(n, samples.shape[1]), names, RATE, "")


def test_a_padded_class_is_found():
    """Every class has the same noise; the clips of class 2 end in digital silence."""
    targets = [i % 4 for i in range(48)]
    clips = [noise(i, 0.5) for i in range(48)]
    for i in range(2, 48, 4):
        silenced(clips[i], (0.3 + 0.003 * i, 0.5))
    audit = audit_shortcuts(*collection(clips, targets, [i // 4 % 3 + 1 for i in range(48)]))
    facts = audit.scores["file_facts"]
    assert (facts.recall[2], facts.precision[2], facts.strongest[2]) == (1.0, 1.0, "high trailing_silence_s")
    assert facts.accuracy > max(facts.permuted)
    assert audit.chance == audit.majority == 0.25
    low, high = facts.interval
    assert low < facts.accuracy < high
    sentence = "class_2 has a recall of 100.0 % and a precision of 100.0 %; the cue of largest weight is high trailing"
    assert any(sentence in line for line in shortcut_lines(audit))
    first = next(csv.DictReader(io.StringIO(shortcuts_csv(audit))))
    assert (first["class"], first["file_facts_recall_percent"]) == ("class_2", "100.0")


def test_content_without_shortcuts_is_within_the_permutations():
    """The classes are chirps in noise and the same clips reversed: only the order of the frequencies differs."""
    time = np.arange(2 * FRAME) / RATE  # whole frames, so that those of a reversed clip are reversed frames
    chirp = 3000 * np.sin(2 * np.pi * (300 * time + 2000 * time**2))
    rising = [chirp + noise(i, len(time) / RATE, 300) for i in range(40)]
    clips = [clip for wave in rising for clip in (wave, wave[::-1])]
    targets, folds = [i % 2 for i in range(80)], [i // 2 % 4 + 1 for i in range(80)]
    audit = audit_shortcuts(*collection(clips, targets, folds))
    for name, score in audit.scores.items():
        # both clips of a pair have the same cues, so one of them is wrong
        assert score.accuracy == pytest.approx(0.5, abs=0.03), name
        assert min(score.permuted) <= score.accuracy <= max(score.permuted), name
        assert np.mean(score.permuted) == pytest.approx(0.5, abs=0.06), name


def test_permuted_labels_follow_sources_and_folds():
    sources, targets = [str(i // 4) for i in range(80)], [i // 8 % 5 for i in range(80)]
    table, _ = collection([noise(0, 0.1)] * 80, targets, [i // 40 + 1 for i in range(80)], sources)
    permutations = list(permuted_labels(table))
    assert len({labels.tobytes() for labels in permutations}) == len(permutations)
    for labels in permutations:
        assert sorted(labels[:40]) == sorted(labels[40:]) == sorted(targets[:40])
        assert (labels.reshape(20, 4) == labels.reshape(20, 4)[:, :1]).all()


def test_inputs_are_scaled_by_the_training_clips_only():
    rng = np.random.default_rng(0)
    cues, is_test = rng.normal(size=(30, 3)), np.arange(30) < 6
    cues[:, 2] = np.where(is_test, cues[:, 2], 7.0)
    inputs = FoldInputs.of(cues, is_test)
    changed = FoldInputs.of(np.where(is_test[:, None], 1e9, cues), is_test)
    np.testing.assert_array_equal(inputs.train, changed.train)
    np.testing.assert_allclose(inputs.train[:, :2].mean(axis=0), 0, atol=1e-12)
    # a monotonic function of a cue changes nothing
    np.testing.assert_allclose(FoldInputs.of(np.exp(cues), is_test).test, inputs.test)
    # constant in training: no information, even if the test clips differ
    assert not inputs.train[:, 2].any()
    assert not inputs.test[:, 2].any()


def test_the_model_equals_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 200)
    inputs = rng.normal(size=(200, 5)) + 0.5 * np.eye(4, 5)[targets]
    weights, biases = fit_logistic(inputs, targets, 4)
    logits = inputs @ weights + biases
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = linear_model.LogisticRegression(tol=1e-8, max_iter=1000).fit(inputs, targets).predict_proba(inputs)
    np.testing.assert_allclose(probabilities, expected, atol=2e-3)


def test_unbalanced_collections():
    """A class with clips in one fold only, a silent clip, and a single fold."""
    targets = [0] * 8 + [1] * 8 + [2] * 2
    folds = [i % 2 + 1 for i in range(16)] + [1, 1]
    table, waves = collection([noise(i, 0.2) * (i != 3) for i in range(18)], targets, folds)
    audit = audit_shortcuts(table, waves)
    assert audit.scores["all_cues"].recall[2] == 0.0
    assert audit.majority == pytest.approx(8 / 18)
    assert "the largest class 44.4 %" in next(shortcut_lines(audit))
    one_fold = ClipTable(table.files, np.ones(18, dtype=np.int64), table.targets, table.sources, table.classes)
    assert audit_shortcuts(one_fold, waves) is None
    assert "at least two folds" in next(shortcut_lines(None))


@pytest.mark.slow
def test_shortcuts_of_esc10(esc10, tmp_path):
    """The numbers of docs/explanation/shortcuts.md: file facts give little, level and spectrum give most."""
    real = open_collection(esc10, tmp_path, seconds=5.0, sample_rate=44100)
    audit = audit_shortcuts(real.table, real.waves)
    accuracy = {name: 100 * score.accuracy for name, score in audit.scores.items()}
    assert accuracy == pytest.approx({"file_facts": 15.25, "band_limit": 26.0, "all_cues": 64.75}, abs=1.0)
    assert max(max(score.permuted) for score in audit.scores.values()) < 0.2
