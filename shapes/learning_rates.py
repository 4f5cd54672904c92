"""Choose the learning rates of the study's biased setting, on scenes that no table reports.

Each variant is trained on few colors with several shares of the base learning rate for the image
tower (``SOLVER.VISUAL_ENCODER_MULTIPLIER``). The best has the highest harmonic mean of the mask
accuracies on seen and unseen classes of ``shapes_tune``, as generalized zero-shot learning is
judged; ``shapes.study.MULTIPLIERS`` has them. A stopped run goes on behind its finished parts.

    python -m shapes.learning_rates [--output output/shapes_learning_rates] [--seeds 2]
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from shapes.protocol import EVALUATIONS, evaluate, read_scores
from shapes.study import CONFIGS, REPOSITORY, TUNED, biased_options, train_once

DATASET = "shapes_tune"
MULTIPLIERS = (1.0, 0.3, 0.1, 0.03)
(COLUMN,) = EVALUATIONS[0].metrics


def mask_accuracy(name: str, multiplier: float, seed: int, output: Path) -> dict[str, float]:
    """Of all, seen and unseen classes of ``shapes_tune`` after a training on few colors."""
    folder = output / name / str(multiplier) / f"seed_{seed}"
    options = [*biased_options(multiplier), "SEED", str(seed)]
    weights = train_once(name, folder / "training", options)
    try:
        scores = read_scores(EVALUATIONS[0], folder, DATASET)
    except FileNotFoundError:
        config = CONFIGS / f"{name}.yaml"
        scores = evaluate(
            config, EVALUATIONS[0], weights, folder, options, lambda line: None, DATASET
        )
    return scores[COLUMN]


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / "output" / "shapes_learning_rates"
    )
    parser.add_argument("--seeds", type=int, default=2, help="how many; seeds are 0, 1, ...")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    found: dict[str, dict[float, list[float]]] = {}
    for name in TUNED:
        for multiplier in MULTIPLIERS:
            runs = [mask_accuracy(name, multiplier, s, output) for s in range(arguments.seeds)]
            seen, unseen = (
                statistics.fmean(r[group] for r in runs) for group in ("seen", "unseen")
            )
            found.setdefault(name, {})[multiplier] = [seen, unseen]
            mean = statistics.harmonic_mean([seen, unseen])
            sys.stdout.write(
                f"{name}, multiplier {multiplier}: seen {seen:.1f}, unseen {unseen:.1f}, "
                f"harmonic mean {mean:.1f}\n"
            )
            sys.stdout.flush()
    (output / "learning_rates.json").write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
