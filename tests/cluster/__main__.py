"""The command line of the throw-away cluster: `python -m tests.cluster --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from tests.cluster import binaries, images
from tests.cluster.cluster import DEFAULT_NAME, Cluster, unknown
from tests.cluster.console import say
from tests.cluster.errors import ClusterError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    parser = _parser()
    options, flags = parser.parse_known_args(arguments)
    if flags and not hasattr(options, "tool"):
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    try:
        return int(options.run(options) if not flags else _passed_on(options, flags))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the next `up` clears what this one left", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default=DEFAULT_NAME, help="cluster name (default: %(default)s)")

    up = commands.add_parser("up", parents=[named], help="start a cluster; nothing happens when it already runs")
    up.add_argument(
        "--nodes",
        type=int,
        choices=range(1, 16),
        metavar="N",
        default=1,
        help="nodes that run pods, 1 to 15 (default: %(default)s)",
    )
    up.add_argument("--control-plane", action="store_true", help="no node: API server, controllers, scheduler")
    up.add_argument("--api-only", action="store_true", help="no node and no controllers: etcd and API server")
    up.set_defaults(run=_up)

    for name, run, text in (
        ("down", _down, "end a cluster and give everything back"),
        ("kubeconfig", _kubeconfig, "print the path of the kubeconfig"),
        ("status", _status, "print what runs, as JSON"),
    ):
        commands.add_parser(name, parents=[named], help=text).set_defaults(run=run)

    for tool in ("kubectl", "helm"):
        passed = commands.add_parser(tool, parents=[named], help=f"run {tool} on the cluster")
        passed.add_argument("arguments", nargs=argparse.REMAINDER)
        passed.set_defaults(run=_passed_on, tool=tool)

    built = commands.add_parser("images", help="build what changed of the images, print their references as JSON")
    built.add_argument(
        "names", nargs="*", choices=[*images.IMAGES, "base", []], help="default: operator, check, trainer"
    )
    built.add_argument("--load", metavar="CLUSTER", help="also pull them to the nodes of this cluster")
    built.set_defaults(run=_images)

    programs = commands.add_parser("programs", help="build the Go programs and print their folder")
    programs.add_argument("module", nargs="?", default="kube", choices=sorted(binaries.MODULES))
    programs.set_defaults(run=_programs)
    return parser


def _up(options: argparse.Namespace) -> int:
    nodes = 0 if options.control_plane or options.api_only else options.nodes
    cluster = Cluster(options.name, nodes=nodes, controllers=not options.api_only).up()
    print(cluster.kubeconfig)
    return 0


def _down(options: argparse.Namespace) -> int:
    cluster = Cluster(options.name)
    existed = cluster.exists
    cluster.down()  # also removes what a killed run has left
    if not existed:
        say(unknown(options.name))
    return 0


def _kubeconfig(options: argparse.Namespace) -> int:
    print(_there(options.name).kubeconfig)
    return 0


def _status(options: argparse.Namespace) -> int:
    cluster = Cluster(options.name)
    print(json.dumps(cluster.status(), indent=2))
    if not cluster.exists:
        say(unknown(options.name))
    return 0


def _there(name: str) -> Cluster:
    """The cluster of that name.

    Raises:
        ClusterError: there is none; otherwise tools would use their default cluster.
    """
    cluster = Cluster(name)
    if not cluster.exists:
        raise ClusterError(f"{unknown(name)}; `make cluster-up NAME={name}` starts it")
    return cluster


def _passed_on(options: argparse.Namespace, flags: Sequence[str] = ()) -> int:
    """Exec the tool. `flags`: those before the tool's first word, as in `-n x get pods`, which argparse separates."""
    cluster = _there(options.name)
    program = str(cluster.programs / options.tool)
    os.execve(
        program, [options.tool, *flags, *options.arguments], {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    )


def _images(options: argparse.Namespace) -> int:
    names = options.names or list(images.IMAGES)
    built = images.build_all(name for name in names if name != "base")
    if "base" in names:
        built["base"] = images.base_image()
    if options.load:
        Cluster(options.load).load_image(*built.values())
    print(json.dumps(built, indent=2))
    return 0


def _programs(options: argparse.Namespace) -> int:
    print(binaries.build(options.module))
    return 0


if __name__ == "__main__":
    sys.exit(main())
