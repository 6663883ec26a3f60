"""Try a model on a web page: soundfold demo outputs/esc50-1a2b3c4d"""

from pathlib import Path

from soundfold.cli.flags import add_trust, flag_parser, trust_modules
from soundfold.errors import InputError


def main() -> None:
    """Run the command on the arguments of this process."""
    parser = flag_parser(
        "demo",
        "Serve a web page, to this machine only, that classifies an uploaded or recorded sound. It shows "
        "class probabilities, the log-mel with the model's class activation and, for a long recording, the timeline. "
        "Requires Gradio, the extra `demo` of soundfold.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, outputs/<name>-<id>, or a weights.pt")
    parser.add_argument("--fold", help="use only the model of this fold, or of 'none'; default: the mean of all folds")
    parser.add_argument("--port", type=int, help="default: a free port from 7860 on")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="maximum length of a sound; default 600")
    parser.add_argument("--max-megabytes", type=float, default=50.0, help="maximum size of an upload; default 50")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default auto")
    add_trust(parser)
    args = parser.parse_args()
    trust_modules(args.trust)
    for option, value in (("--max-seconds", args.max_seconds), ("--max-megabytes", args.max_megabytes)):
        if not 0 < value < float("inf"):
            raise InputError(f"{option}={value:g} must be above 0 and finite.")
    if args.port is not None and not 0 < args.port < 65536:
        raise InputError(f"--port={args.port} must be between 1 and 65535; ports below 1024 require privileges.")
    # imported here, so that --help answers at once
    from soundfold.experiment.device import choose_device
    from soundfold.inference.app import serve
    from soundfold.inference.predictor import Predictor

    predictor = Predictor.load(args.run, args.fold, choose_device(args.device, "--device"))
    serve(predictor, args.port, args.max_seconds, args.max_megabytes)
