"""Run the most valuable measurements on a GPU within a time limit: python scripts/gpu_plan.py --data data.root=DIR"""

import argparse
from pathlib import Path

from soundfold.errors import InputError, exit_code_of


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Run the CUDA tests, the tables of speed, the four rows of the published table, the ablations and "
        "the recipe for as many steps as the time allows, and the speedrun if three minutes are left. Every result is "
        "written to plan.json as it ends, and all small files to plan.zip at the end. The same command in the same "
        "folder goes on where it ended.",
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs/gpu_plan"), help="default %(default)s")
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit, default %(default)g")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda if there is one")
    parser.add_argument("--parallel", type=int, default=8, help="trainings at a time, default %(default)s")
    parser.add_argument("--stages", help="comma-separated, default tests,published,ablations,tables,recipe,speedrun")
    parser.add_argument("--folds", default="1,2,3", help="folds of the ablations, default %(default)s")
    parser.add_argument("--recipe", nargs="+", default=["experiment=scratch"], metavar="KEY=VALUE")
    parser.add_argument("--max-steps", type=int, default=10_000, help="of the recipe, default %(default)s")
    parser.add_argument("--seeds", default="0", help="of the recipe, comma-separated, default %(default)s")
    parser.add_argument(
        "--data", nargs="+", default=["data=esc50_16k"], metavar="KEY=VALUE", help="default %(default)s"
    )
    parser.add_argument("--ablations", type=Path, help="a file like scripts/benchmarks/ablations.yaml")
    parser.add_argument("--extra", nargs="+", default=[], metavar="KEY=VALUE", help="for every training")
    args = parser.parse_args()
    # imported here, so that --help answers at once
    from benchmarks.gpu_plan import ABLATIONS, STAGES, Plan, device_name

    stages = args.stages.split(",") if args.stages else STAGES
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise InputError(f"--stages={unknown[0]} is unknown. Set some of {','.join(STAGES)}.")
    if not args.minutes > 0 or args.parallel < 1:
        raise InputError("--minutes must be above 0 and --parallel at least 1.")
    try:
        folds, seeds = (tuple(map(int, text.split(","))) for text in (args.folds, args.seeds))
    except ValueError:
        raise InputError("--folds and --seeds take numbers separated by commas, such as 1,2,3.") from None
    plan = Plan(
        args.outputs,
        args.device or device_name(),
        tuple(args.data),
        args.minutes,
        args.parallel,
        folds,
        tuple(args.recipe),
        args.max_steps,
        seeds,
        tuple(args.extra),
        args.ablations or ABLATIONS,
    )
    print(plan.run(stages))


if __name__ == "__main__":
    raise SystemExit(exit_code_of(main))
