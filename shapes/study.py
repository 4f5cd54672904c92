"""What the paper claims, asked of the built-in world, over several seeds.

1. Fine-tuning on ground-truth masks raises mask accuracy and mIoU.
2. Training on superpixel masks instead raises them less.
3. With consistency alignment (PSM) unseen classes gain; without it they gain less, or lose.

Every training and evaluation is a run of ``train_maskclippp.py``. The table shows mean and spread
(standard deviation) over seeds; each claim is then judged on paired differences, and may fail.
A study that was stopped goes on behind its finished runs.

    python -m shapes.study [--output output/shapes_study] [--seeds 3] [KEY VALUE ...]
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from shapes.protocol import COLUMNS, EVALUATIONS, GROUPS, Scores, evaluate, train

REPOSITORY = Path(__file__).resolve().parents[1]

CONFIGS = REPOSITORY / "configs" / "shapes"
PLAIN = "plain_clip"
TUNED = ("linear_psm", "pseudotext_psm", "no_psm", "superpixel_training")
JUDGED = ("mask accuracy", "mIoU, true masks")

# One entry per seed; plain CLIP has a single one, because nothing in it is random.
Study = dict[str, list[Scores]]


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds for one metric: the difference in points, per seed."""

    claim: str
    differences: list[float]

    @property
    def holds(self) -> bool:
        """The mean difference is above zero by more than its standard error."""
        mean = statistics.fmean(self.differences)
        return mean > 0 and mean > spread(self.differences) / len(self.differences) ** 0.5


def spread(values: list[float]) -> float:
    """Standard deviation over seeds; 0 for a single one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def measure(output: Path, seeds: Iterable[int], options: list[str]) -> Study:
    """Train every config with every seed and evaluate everything."""
    seeds = list(seeds)
    study: Study = {PLAIN: [_evaluate_all(PLAIN, None, output / PLAIN, options)]}
    runs = [(name, seed) for name in TUNED for seed in seeds]
    for name, seed in tqdm(runs, desc="trainings", unit="run"):
        folder = output / name / f"seed_{seed}"
        seeded = [*options, "SEED", str(seed)]
        study.setdefault(name, []).append(_run_once(name, folder, seeded))
    return study


def _run_once(name: str, folder: Path, options: list[str]) -> Scores:
    """Train and evaluate, unless that was done with the same options before a study stopped."""
    record = folder / "scores.json"
    if record.is_file():
        content = json.loads(record.read_text(encoding="utf-8"))
        if content["options"] == options:
            scores: Scores = content["scores"]
            return scores
    weights = train(CONFIGS / f"{name}.yaml", folder / "training", options, _ignore)
    scores = _evaluate_all(name, weights, folder, options)
    content = {"options": options, "scores": scores}
    record.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return scores


def _evaluate_all(name: str, weights: Path | None, output: Path, options: list[str]) -> Scores:
    scores: Scores = {}
    config = CONFIGS / f"{name}.yaml"
    for evaluation in EVALUATIONS:
        scores |= evaluate(config, evaluation, weights, output, options, _ignore)
    return scores


def _ignore(line: str) -> None:
    """Output of the runs is in their files; here only the bar moves."""


def differences(study: Study, better: str, worse: str, column: str, group: str) -> list[float]:
    """`better` minus `worse` per seed; a config that was run once is compared with every seed."""
    first, second = study[better], study[worse]
    count = max(len(first), len(second))
    pairs = zip(first * (count // len(first)), second * (count // len(second)), strict=True)
    return [a[column][group] - b[column][group] for a, b in pairs]


def judge(study: Study) -> list[Verdict]:
    """The three claims, each for mask accuracy and mIoU with true masks."""
    verdicts = []
    for column in JUDGED:
        for psm in ("linear_psm", "pseudotext_psm"):
            claims = (
                (f"1. {psm} is above plain CLIP", PLAIN, "all"),
                (f"3. {psm} is above plain CLIP on unseen classes", PLAIN, "unseen"),
                (f"3. {psm} is above no_psm on unseen classes", "no_psm", "unseen"),
            )
            verdicts += [
                Verdict(f"{text} ({column})", differences(study, psm, other, column, group))
                for text, other, group in claims
            ]
        verdicts.append(
            Verdict(
                f"2. linear_psm is above superpixel_training ({column})",
                differences(study, "linear_psm", "superpixel_training", column, "all"),
            )
        )
    return sorted(verdicts, key=lambda verdict: verdict.claim)


def markdown(study: Study, verdicts: list[Verdict]) -> str:
    """The table of means and spreads, all/seen/unseen, and the verdicts."""
    lines = [
        "| config | " + " | ".join(COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for name, scores in study.items():
        cells = []
        for column in COLUMNS:
            values = [[s[column][group] for s in scores] for group in GROUPS]
            means = "/".join(f"{statistics.fmean(v):.1f}" for v in values)
            cells.append(f"{means} ± {'/'.join(f'{spread(v):.1f}' for v in values)}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    groups = "/".join(GROUPS)
    lines += ["", f"Percent, {groups} classes; mean ± standard deviation over seeds.", ""]
    for verdict in verdicts:
        mean = statistics.fmean(verdict.differences)
        lines.append(
            f"- {'holds' if verdict.holds else '**fails**'}: {verdict.claim}: "
            f"{mean:+.1f} ± {spread(verdict.differences):.1f} points"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / "output" / "shapes_study")
    parser.add_argument("--seeds", type=int, default=3, help="how many; seeds are 0, 1, ...")
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, help="KEY VALUE pairs laid over every config"
    )
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds: expected at least 1, found {arguments.seeds}")
    output = arguments.output.resolve()
    study = measure(output, range(arguments.seeds), arguments.options)
    verdicts = judge(study)
    content = {
        "options": arguments.options,
        "scores": study,
        "verdicts": [{**asdict(v), "holds": v.holds} for v in verdicts],
    }
    (output / "study.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    table = markdown(study, verdicts)
    (output / "study.md").write_text(table, encoding="utf-8")
    sys.stdout.write("\n" + table)


if __name__ == "__main__":
    main()
