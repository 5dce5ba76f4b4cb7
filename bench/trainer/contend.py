"""One contender, in this process: `python -m bench.trainer.contend ours --shape 135M --lengths ragged-cpu …`."""

import argparse
import os


def main() -> None:
    """Run the contender that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender")
    parser.add_argument("--shape", required=True)
    parser.add_argument("--lengths", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--precision", default="Auto")
    parser.add_argument("--each", type=int, default=8)
    parser.add_argument("--after", help="file whose appearance is the turn of this contender")
    parser.add_argument("--profile")
    parser.add_argument("--cprofile")
    args = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}
    from bench.trainer import ours, peers

    (ours if args.contender.startswith("ours") else peers).run(args)


if __name__ == "__main__":
    main()
