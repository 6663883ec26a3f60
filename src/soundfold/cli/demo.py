"""Try a model on a web page: soundfold demo outputs/esc50-1a2b3c4d"""

from soundfold.cli.flags import add_device, add_fold, add_run, check_port, flag_parser, parse_trusting
from soundfold.errors import InputError


def main() -> None:
    """Run the command on the arguments of this process."""
    parser = flag_parser(
        "demo",
        "Serve a web page, to this machine only, that classifies an uploaded or recorded sound. It shows "
        "class probabilities, the log-mel with the model's class activation and, for a long recording, the timeline. "
        "Requires Gradio, the extra `demo` of soundfold.",
    )
    add_run(parser)
    add_fold(parser)
    parser.add_argument("--port", type=int, help="default: a free port from 7860 on")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="maximum length of a sound; default 600")
    parser.add_argument("--max-megabytes", type=float, default=50.0, help="maximum size of an upload; default 50")
    add_device(parser)
    args = parse_trusting(parser)
    for option, value in (("--max-seconds", args.max_seconds), ("--max-megabytes", args.max_megabytes)):
        if not 0 < value < float("inf"):
            raise InputError(f"{option}={value:g} must be above 0 and finite.")
    check_port(args.port)
    # imported here, so that --help answers at once
    from soundfold.experiment.device import choose_device
    from soundfold.inference.app import serve
    from soundfold.inference.predictor import Predictor

    predictor = Predictor.load(args.run, args.fold, choose_device(args.device, "--device"))
    serve(predictor, args.port, args.max_seconds, args.max_megabytes)
